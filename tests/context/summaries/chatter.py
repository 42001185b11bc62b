"""What assistants say at length and nobody needs to remember: paragraphs without a fact of the conversation's."""

# ruff: noqa: RUF001, E501 - several scripts, each meant, some of them wide

ENGLISH = [
    (
        "There are a few ways to look at this. One is to begin with what is already there and to change a little at a "
        "time, which is slower but keeps surprises small. Another is to draw everything on a sheet of paper first and "
        "to see where the lines cross. Most people end up somewhere between the two, and that is perfectly fine. The "
        "important thing is to write down what was learned on the way, since it is easily forgotten."
    ),
    (
        "In general it pays to talk to others who have done something similar. They tend to be generous with advice, "
        "and they remember best what went wrong, which is exactly what one wants to hear. Not everything that worked "
        "for them will work elsewhere, of course. Still, a short conversation over tea can save a long evening. It's "
        "important to note that opinions differ, and that nobody sees the whole picture."
    ),
    (
        "A simple list on the wall is often better than a clever tool. It is seen by everybody who walks past, it never "
        "needs a password, and crossing something out feels good. When the list gets too long, it is a sign that some "
        "of it was never going to happen. Taking such things off is not a defeat but a relief. I hope this helps!"
    ),
]

ROMAN_URDU = [
    (
        "Is baat ko dekhne ke kai tareeqe hain. Ek yeh ke jo cheez pehle se maujood hai usi se shuru kiya jaye aur "
        "aahista aahista aage barha jaye. Doosra yeh ke sab kuch pehle kaghaz par likh liya jaye, phir us par ghaur "
        "kiya jaye. Aksar log in dono ke darmiyan ka rasta apnate hain, aur us mein koi harj nahi. Sabar se kaam lene "
        "wale akhir mein sukoon mein rehte hain."
    ),
    (
        "Doosron ke tajurbe se seekhna bhi bahut kaam aata hai. Log apni ghaltiyan khushi se bata dete hain, aur unhi "
        "se asal sabaq milta hai. Har mashwara har kisi par poora nahi utarta, lekin sun lene mein koi nuqsan bhi "
        "nahi. Ek pyali chai par hone wali guftagu lambi shaam ki mehnat bacha deti hai."
    ),
    (
        "Deewar par lagi ek saadi si fehrist aksar sab se acha kaam karti hai. Ghar ka har fard use dekh leta hai aur "
        "kisi cheez ko kaat dene ka apna hi lutf hota hai. Jab fehrist lambi hone lage to samajh lein ke us mein kuch "
        "cheezein be zaroorat hain."
    ),
]

URDU = [
    (
        "اس بات کو دیکھنے کے کئی انداز ہیں۔ ایک یہ کہ جو کچھ پہلے سے موجود ہے اسی سے آغاز کیا جائے اور آہستہ آہستہ آگے "
        "بڑھا جائے۔ دوسرا یہ کہ سب کچھ پہلے کاغذ پر لکھ لیا جائے اور پھر اس پر غور کیا جائے۔ اکثر لوگ ان دونوں کے "
        "درمیان کا راستہ اختیار کرتے ہیں اور اس میں کوئی حرج نہیں۔"
    ),
    (
        "دوسروں کے تجربے سے سیکھنا بھی بہت مفید ہوتا ہے۔ لوگ اپنی غلطیاں خوشی سے بتا دیتے ہیں اور انہی سے اصل سبق ملتا "
        "ہے۔ ہر مشورہ ہر کسی پر پورا نہیں اترتا، لیکن سن لینے میں کوئی نقصان بھی نہیں۔ ایک پیالی چائے پر ہونے والی "
        "گفتگو لمبی شام کی محنت بچا دیتی ہے۔"
    ),
    (
        "دیوار پر لگی ایک سادہ سی فہرست اکثر سب سے اچھا کام کرتی ہے۔ ہر گزرنے والا اسے دیکھ لیتا ہے۔ جب فہرست لمبی ہونے "
        "لگے تو سمجھ لینا چاہیے کہ اس میں کچھ چیزیں غیر ضروری ہیں۔ انہیں نکال دینا ہار نہیں بلکہ سکون ہے۔"
    ),
]

HINDI = [
    (
        "इस बात को देखने के कई ढंग हैं। एक यह कि जो कुछ पहले से मौजूद है उसी से शुरुआत की जाए और धीरे-धीरे आगे बढ़ा जाए। दूसरा "
        "यह कि सब कुछ पहले काग़ज़ पर लिख लिया जाए और फिर उस पर विचार किया जाए। अक्सर लोग इन दोनों के बीच का रास्ता अपनाते हैं।"
    ),
    (
        "दूसरों के अनुभव से सीखना भी बहुत काम आता है। लोग अपनी गलतियाँ खुशी से बता देते हैं और उन्हीं से असली सीख मिलती है। हर "
        "सलाह हर किसी पर पूरी नहीं उतरती, लेकिन सुन लेने में कोई नुकसान भी नहीं। एक प्याली चाय पर हुई बातचीत "
        "लंबी शाम की मेहनत बचा देती है।"
    ),
    (
        "दीवार पर लगी एक सादी सी सूची अक्सर सबसे अच्छा काम करती है। हर आने-जाने वाला उसे देख लेता है। जब सूची लंबी होने लगे तो "
        "समझ लीजिए कि उसमें कुछ चीज़ें बेकार हैं। उन्हें हटा देना हार नहीं, राहत है।"
    ),
]
