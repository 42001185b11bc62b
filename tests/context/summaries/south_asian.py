"""Chatter in Urdu, in both scripts, and in Hindi."""

# ruff: noqa: RUF001, E501 - several scripts, each meant, some of them wide

from tests.context.summaries import chatter
from tests.context.summaries.block import Block

ROMAN_URDU = Block(
    "roman urdu",
    [
        ("user", "Assalam o alaikum! Kaise hain aap?"),
        (
            "assistant",
            ("Walaikum assalam! Main bilkul theek hoon, aap ka bahut shukriya. Aap sunaiye, aaj ka din kaisa guzar "
            "raha hai? Agar kisi cheez mein madad darkar ho to be jhijhak poochiye, chahe woh kaam ki baat ho ya "
            "sirf gup shup. Mujhe aap se baat kar ke khushi hogi."),
        ),
        ("user", "Alhamdulillah. Mera naam Bilal Hashmi hai, main Karachi mein rehta hoon."),
        (
            "assistant",
            ("Bahut acha laga aap se mil kar! Woh shehar to apni raunaq aur khanon ki wajah se mashhoor hai. Samandar "
            "ki hawa, chai ke dhabay, aur log jo der raat tak jaagte hain. Aisi jagah mein boriyat ka sawal hi "
            "paida nahi hota, albatta traffic kabhi kabhi insaan ko thaka deti hai."),
        ),
        ("user", "haha sahi kaha. Meri behen Sana ki shaadi 12 December ko hai aur mujhe tayyari karni hai"),
        (
            "assistant",
            ("Bahut bahut mubarak ho! Shaadi ka ghar to raunaq se bhara hota hai. Sab se pehle mehmanon ki fehrist "
            "bana lena acha rehta hai, phir jagah, phir khana, aur phir baqi cheezein. Har kaam ko chhote chhote "
            "hisson mein baant lein to bojh halka ho jata hai, aur ghar walon ko bhi apna apna hissa mil jata hai."),
        ),
        ("user", "achha theek hai"),
        ("user", "Humara kul budget 18 lakh hai, is se zyada nahi."),
        (
            "assistant",
            ("Shukriya, yeh jaan kar asani hogi. Aam taur par sab se bara kharcha khane aur hall ka hota hai, us ke "
            "baad kapre aur sajawat. Kuch log phoolon par bahut kharch karte hain, halan ke saadi sajawat bhi utni "
            "hi khoobsurat lagti hai. Thori si raqam alag rakhna hamesha kaam aata hai."),
        ),
        ("user", "Faisla ho gaya hai ke hall Pearl Banquet lenge, Gulshan wala nahi."),
        (
            "assistant",
            ("Zabardast intekhab! Jagah pakki ho jaye to aadhi fikar khatam ho jati hai. Ab aap sukoon se baqi "
            "cheezon ki taraf dekh sakte hain, jaise rang, roshni, aur baithne ka intezam. Mehmanon ke aane jane "
            "ka rasta bhi dekh lena chahiye taake kisi ko pareshani na ho."),
        ),
        ("user", "Abbu ko sugar hai to un ke liye feeki mithai ka alag intezam chahiye"),
        (
            "assistant",
            ("Yeh bahut achi soch hai, buzurgon ka khayal rakhna barkat ki baat hai. Aaj kal aisi cheezein asani se "
            "mil jati hain, aur un ka zaiqa bhi kam nahi hota. Bas halwai ko pehle se bata dena behtar rehta hai."),
        ),
        ("user", "Mujhe hamesha Roman Urdu mein jawab dena, mushkil alfaz mat likhna."),
        ("assistant", "Ji bilkul, aap jaisa kahein. Aasan alfaz mein hi baat karenge."),
        ("user", "shukriya yaar. aaj match bhi tha, dekha?"),
        (
            "assistant",
            ("Match ka apna hi maza hai, khaas taur par jab sab ghar wale ek saath baith kar dekhein. Chai aur "
            "pakore saath hon to baat hi kya hai. Haar jeet to hoti rehti hai, asal cheez woh waqt hai jo apnon ke "
            "saath guzarta hai."),
        ),
        ("user", "Photographer abhi tak nahi mila, kis se baat karoon?"),
    ],
    ["Bilal Hashmi", "Karachi", "12 December", "Sana", "18 lakh", "Pearl Banquet", "sugar", "Roman Urdu",
     "Photographer"],
    chatter.ROMAN_URDU,
)  # fmt: skip

URDU = Block(
    "urdu",
    [
        ("user", "السلام علیکم! آپ کیسے ہیں؟"),
        (
            "assistant",
            (
                "وعلیکم السلام! میں بالکل ٹھیک ہوں، آپ کا بہت شکریہ۔ امید ہے کہ آپ بھی خیریت سے ہوں گے۔ اگر کسی بات میں "
                "مدد درکار ہو تو ضرور بتائیں، چاہے وہ پڑھائی کی بات ہو یا روزمرہ کا کوئی کام۔ بات چیت سے بہت سی الجھنیں "
                "سلجھ جاتی ہیں۔"
            ),
        ),
        ("user", "میرا نام عائشہ صدیقی ہے اور میں ملتان میں ایک اسکول میں پڑھاتی ہوں۔"),
        (
            "assistant",
            (
                "آپ سے مل کر بہت خوشی ہوئی۔ پڑھانا ایک نہایت معزز پیشہ ہے اور اس میں صبر کی بھی آزمائش ہوتی ہے۔ بچوں کی "
                "باتیں کبھی ہنساتی ہیں اور کبھی سوچنے پر مجبور کرتی ہیں۔ ایک اچھا استاد وہی ہوتا ہے جو خود بھی سیکھتا "
                "رہے اور دوسروں کو بھی ساتھ لے کر چلے۔"
            ),
        ),
        ("user", "جی ہاں، بہت شکریہ۔"),
        ("user", "ہم نے فیصلہ کیا ہے کہ سائنس کا میلہ 25 نومبر کو ہوگا۔"),
        (
            "assistant",
            (
                "یہ تو بہت عمدہ خیال ہے۔ ایسے میلوں سے بچوں میں شوق پیدا ہوتا ہے اور والدین بھی خوش ہوتے ہیں۔ چھوٹے چھوٹے "
                "تجربے اکثر سب سے زیادہ پسند کیے جاتے ہیں، کیونکہ انہیں ہر کوئی سمجھ لیتا ہے۔ میزوں کی ترتیب اور روشنی "
                "کا بھی خیال رکھا جائے تو ماحول خوشگوار بن جاتا ہے۔"
            ),
        ),
        ("user", "کل بجٹ 75000 روپے ہے اور پرنسپل کا نام رخسانہ بیگم ہے۔"),
        (
            "assistant",
            (
                "شکریہ، اس سے منصوبہ بندی آسان ہو جائے گی۔ عام طور پر سب سے زیادہ خرچ سامان اور سجاوٹ پر آتا ہے۔ بہت سی "
                "چیزیں گھر سے بھی لائی جا سکتی ہیں، جیسے پرانے ڈبے، دھاگے اور رنگین کاغذ۔ اس طرح بچے بھی کچھ نیا بنانا "
                "سیکھ جاتے ہیں اور فضول خرچی بھی نہیں ہوتی۔"
            ),
        ),
        ("user", "اچھا، ٹھیک ہے۔"),
        ("user", "مجھے ہمیشہ سادہ اردو میں جواب دیں، انگریزی کے الفاظ مجھے پسند نہیں۔"),
        ("assistant", "جی ضرور، آپ کی خواہش کا پورا خیال رکھا جائے گا۔"),
        ("user", "میری بیٹی کو مونگ پھلی سے الرجی ہے، اس لیے اسٹال پر ایسی کوئی چیز نہ ہو۔"),
        (
            "assistant",
            (
                "یہ جاننا بہت ضروری تھا۔ بچوں کی صحت سب سے پہلے آتی ہے۔ کھانے کی میز پر پھل، ابلے ہوئے چنے اور گھر کے بنے "
                "بسکٹ رکھے جا سکتے ہیں۔ بہتر یہی ہے کہ ہر چیز کے ساتھ ایک پرچی لگی ہو جس پر اس کے اجزا لکھے ہوں۔"
            ),
        ),
        ("user", "آج موسم بہت خوشگوار ہے۔"),
        (
            "assistant",
            (
                "واہ، ایسے موسم میں چائے کا لطف ہی کچھ اور ہوتا ہے۔ ہلکی ہوا اور بادل دل کو سکون دیتے ہیں۔ کبھی کبھی کام "
                "چھوڑ کر تھوڑی دیر باہر بیٹھنا بھی طبیعت کو تازہ کر دیتا ہے۔"
            ),
        ),
        ("user", "منصفین کے لیے کس کو بلایا جائے؟"),
    ],
    ["عائشہ صدیقی", "ملتان", "25 نومبر", "75000", "رخسانہ بیگم", "سادہ اردو", "مونگ پھلی", "منصفین"],
    chatter.URDU,
)

HINDI = Block(
    "hindi",
    [
        ("user", "नमस्ते! आप कैसे हैं?"),
        (
            "assistant",
            (
                "नमस्ते! मैं बिल्कुल ठीक हूँ, पूछने के लिए बहुत धन्यवाद। आशा है कि आपका दिन भी अच्छा बीत रहा होगा। अगर किसी "
                "बात में सहायता की आवश्यकता हो तो निस्संकोच पूछिए, चाहे वह काम की बात हो या यूँ ही कोई बातचीत।"
            ),
        ),
        ("user", "मेरा नाम राजेश वर्मा है और मैं भोपाल में रहता हूँ।"),
        (
            "assistant",
            (
                "आपसे मिलकर बहुत अच्छा लगा! झीलों का वह शहर अपनी हरियाली और शांत सुबहों के लिए जाना जाता है। वहाँ की "
                "गलियों में टहलना और शाम को पानी के किनारे बैठना मन को सुकून देता है। पुराने बाज़ारों की अपनी ही रौनक होती है।"
            ),
        ),
        ("user", "जी धन्यवाद"),
        ("user", "हमने तय किया है कि दुकान 10 अगस्त से पहले खुलेगी।"),
        (
            "assistant",
            (
                "यह तो बहुत बढ़िया बात है! नई शुरुआत हमेशा उत्साह लाती है। सबसे पहले जगह की सफाई और रंगाई हो जाए तो बाकी काम "
                "अपने आप गति पकड़ लेते हैं। आसपास के लोगों से मिलना भी अच्छा रहता है, क्योंकि पहले ग्राहक अक्सर पड़ोसी ही होते हैं।"
            ),
        ),
        ("user", "बजट 350000 रुपये है और साझेदार सुनीता मिश्रा हैं।"),
        (
            "assistant",
            (
                "धन्यवाद, इससे योजना बनाना आसान हो जाएगा। आम तौर पर सबसे ज़्यादा खर्च सामान और सजावट में होता है। थोड़ा हिस्सा "
                "अलग रख लेना समझदारी है, क्योंकि काम के दौरान छोटी-छोटी चीज़ें निकल ही आती हैं। धैर्य रखने से सब ठीक हो जाता है।"
            ),
        ),
        ("user", "हाँ ठीक है"),
        ("user", "कृपया हमेशा छोटे वाक्यों में जवाब दें, मुझे लंबे उत्तर पसंद नहीं।"),
        ("assistant", "जी ज़रूर, अब से उत्तर छोटे होंगे।"),
        ("user", "मेरी पत्नी को दूध से एलर्जी है।"),
        (
            "assistant",
            (
                "यह जानना अच्छा रहा। खाने-पीने की चीज़ें चुनते समय इसका ध्यान रहेगा। आजकल बहुत से विकल्प मिल जाते हैं और उनका "
                "स्वाद भी अच्छा होता है। थोड़ी सी सावधानी से सब कुछ आराम से चल जाता है।"
            ),
        ),
        ("user", "आज बारिश बहुत हो रही है"),
        (
            "assistant",
            (
                "बारिश में मिट्टी की खुशबू मन को भा जाती है। ऐसे समय में गरम चाय और पकौड़े हों तो बात ही कुछ और है। बस सड़क पर "
                "संभलकर चलना चाहिए, क्योंकि पानी में गड्ढे दिखाई नहीं देते।"
            ),
        ),
        ("user", "लाइसेंस के लिए किससे मिलना होगा?"),
    ],
    ["राजेश वर्मा", "भोपाल", "10 अगस्त", "350000", "सुनीता मिश्रा", "छोटे वाक्यों", "दूध से एलर्जी", "लाइसेंस"],
    chatter.HINDI,
)
