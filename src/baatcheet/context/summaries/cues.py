"""Words that tell what must be kept, in English, Urdu, Roman Urdu and Hindi.

Phrases are compared folded (`fold`): lower case, one form of each letter, no vowel marks.
"""

# ruff: noqa: RUF001 - letters and punctuation of several scripts, each meant

import re
from collections.abc import Iterator, Sequence

# Letters alone do not make an Indic or Arabic word: its vowel signs are marks, which \w leaves out.
_WORD = re.compile(r"[\w\u0300-\u036f\u064b-\u065f\u0670\u0900-\u0963\u200c\u200d]+(?:'\w+)*")
_FOLDED = str.maketrans(
    {"ي": "ی", "ى": "ی", "ك": "ک", "ۀ": "ہ", "ه": "ہ", "أ": "ا", "إ": "ا", "’": "'", "‘": "'", "`": " "}
    | dict.fromkeys([*map(chr, range(0x64B, 0x660)), "\u0670", "\u200c", "\u200d", "\u093c"])
)

_DECISIONS = """
decided|we decide|decision|let's|lets go|we will|we'll|i will|i'll|agreed|agree|settled|final|finally
confirmed|chose
chosen|choose|going with|go with|instead of|rather than|switched|switch to|approved|rejected|cancelled
canceled|booked
ordered|signed|postponed|the plan is|plan is|deadline|due|changed to|moved to
طے|فیصلہ|فیصلہ کیا|کریں گے|کرینگے|چلیں|منظور|طے پایا|ٹھہرا|کرتے ہیں|لیں گے|منسوخ|بدل|رکھیں گے|آخری تاریخ
faisla|tay|tey|karenge|karein ge|karen ge|karte hain|lenge|lein ge|rakhenge|rakhein ge|rakhte hain|chalo
chalein|manzoor
pakka|final kar|theek hai to|book kar|cancel kar|badal
तय|फैसला|फ़ैसला|निर्णय|करेंगे|करते हैं|लेंगे|रखेंगे|चलो|चलिए|पक्का|मंजूर|मंज़ूर|रद्द|बदल|आखिरी तारीख
"""
_WISHES = """
i want|i'd like|i would like|i need|i prefer|prefer|please always|always|never|please don't|don't|do not
i like|i love
i hate|i dislike|my favourite|my favorite|must|must not|should not|shouldn't|make sure|from now on|remember
i wish|no more
keep it|avoid|only use|use only|without any|not too|hoping|goal|i can't|i cannot
چاہتا|چاہتی|چاہتے|چاہیے|چاہئے|پسند|ہمیشہ|کبھی نہیں|کبھی نہ|مت|براہ کرم|یاد رکھنا|یاد رکھیں|ناپسند|خواہش
نہ کرنا|نہ کریں
ضرورت|خیال رکھنا|ترجیح
chahta|chahti|chahte|chahiye|chahie|chahiay|pasand|hamesha|kabhi na|kabhi nahi|mat|yaad rakhna|yaad rakhein
zaroorat
zarurat|na karna|na karein|khayal rakhna|tarjeeh|khwahish|napasand|bilkul nahi
चाहता|चाहती|चाहते|चाहिए|पसंद|हमेशा|कभी नहीं|कभी न|मत|कृपया|याद रखना|याद रखें|ज़रूरत|जरूरत|नापसंद|इच्छा|न करें
ध्यान रखना
"""
_IDENTITY = """
my name|i am called|call me|i live|i work|i was born|i study|i studied|i moved|i'm from|i am from|i have a
i have an|i have two
i have three|allergic|allergy|vegetarian|vegan|diabetic|diabetes|blood pressure|pregnant|married|divorced
my wife
my husband|my son|my daughter|my mother|my father|my brother|my sister|my boss|my manager|my client|my landlord
my doctor|my team|my company|my address|my phone|my number|my email|my birthday|anniversary|my budget
my salary|my cat
my dog|my car|is called|is named|named|years old|year old|passport|password hint|account number|invoice
order number
میرا نام|میرے|میری|میرا|نام|رہتا ہوں|رہتی ہوں|کام کرتا|کام کرتی|الرجی|بیٹی|بیٹا|بیوی|شوہر|بھائی|بہن|والد
والدہ|امی|ابو
سالگرہ|شوگر|ہمارا|ہماری|پتہ|عمر|شادی|بجٹ
mera naam|mera|meri|mere|naam|rehta|rehti|rehte|kaam karta|kaam karti|beti|beta|biwi|shohar|bhai|behen|behan
ammi|abbu|walid
walida|saalgirah|salgirah|sugar|hamara|hamari|pata|umar|shaadi|shadi|allergy hai|budget
मेरा नाम|मेरा|मेरी|मेरे|नाम|रहता|रहती|काम करता|काम करती|एलर्जी|बेटी|बेटा|पत्नी|पति|भाई|बहन|पिता|माता|मम्मी|पापा
जन्मदिन|शुगर|हमारा|हमारी|पता|उम्र|शादी|बजट
"""
_NAMES = """
my name|call me|is called|are called|named|goes by
نام
naam|kehte hain
नाम|कहते हैं
"""
_FINDINGS = """
because|turns out|turned out|the problem|the issue|the cause|root cause|the reason|fixed|works now|the error|solved
کیونکہ|مسئلہ|وجہ|حل
kyunke|kyunki|masla|wajah|wajah se
क्योंकि|समस्या|कारण|वजह
"""
_TIMES = """
january|february|march|april|june|july|august|september|october|november|december|jan|feb|aug|sept|oct|nov
dec|monday|tuesday
wednesday|thursday|friday|saturday|sunday|tomorrow|yesterday|tonight|next week|next month|last week|o'clock
am|pm|ramadan|eid
جنوری|فروری|مارچ|اپریل|مئی|جون|جولائی|اگست|ستمبر|اکتوبر|نومبر|دسمبر|پیر|منگل|بدھ|جمعرات|جمعہ|جمعے|ہفتہ|ہفتے
اتوار
کل|پرسوں|بجے|تاریخ|رمضان|عید|مہینے
kal|parson|peer|mangal|budh|jumerat|jumeraat|juma|jummah|jumay|hafta|hafte|itwar|baje|tareekh|tarikh|mahine
ramzan
जनवरी|फरवरी|मार्च|अप्रैल|मई|जून|जुलाई|अगस्त|सितंबर|अक्टूबर|नवंबर|दिसंबर|सोमवार|मंगलवार|बुधवार|गुरुवार
शुक्रवार|शनिवार
रविवार|कल|परसों|बजे|तारीख|महीने
"""
_AMOUNTS = """
rupees|rupee|rs|pkr|inr|usd|eur|dollars|euros|lakh|lac|crore|thousand|million|billion|percent|kg|km|hundred
dozen|twice
روپے|لاکھ|کروڑ|ہزار|سو|فیصد|کلو|ڈالر|درجن
rupay|rupaye|rupees|hazar|hazaar|karor|crore|feesad|kilo
रुपये|रुपए|लाख|करोड़|हज़ार|हजार|सौ|प्रतिशत|किलो|डॉलर
"""
_OPEN = """
not sure|don't know|still need|still have to|need to find out|to be decided|tbd|todo|to do|pending
waiting for|unclear
open question|haven't decided|not decided|undecided|remains|who will|when will|what about|how much|how many
معلوم نہیں|پتہ نہیں|ابھی باقی|باقی ہے|ابھی تک|انتظار|کب|کون|کتنا|کتنے|کتنی|کیسے|کیا|کیوں|کہاں
pata nahi|maloom nahi|abhi baqi|baqi hai|abhi tak|intezar|kab|kaun|kitna|kitne|kitni|kaise|kyun|kahan
पता नहीं|मालूम नहीं|बाकी है|अभी तक|इंतज़ार|इंतजार|कब|कौन|कितना|कितने|कितनी|कैसे|क्या|क्यों|कहाँ|कहां
"""
_PLEASANTRIES = """
hi hello hey hiya dear there thanks thank you so very much a lot ok okay k fine great good nice cool perfect
awesome wonderful
yes no yeah yep sure alright right got it i see oh ah wow haha lol please welcome you're bye goodbye morning
evening night
afternoon day have how are doing today again well that's is all now for help helping the your
سلام السلام علیکم وعلیکم والسلام شکریہ بہت اچھا اچھی ٹھیک ہے جی ہاں نہیں خدا حافظ آپ کیسے ہیں کا مہربانی
زبردست واہ کمال
salam salaam assalam alaikum assalamualaikum walaikum o shukriya bohat bahut acha achha accha theek thik hai
ji haan han nahi
khuda allah hafiz aap kaise hain ka meherbani zabardast wah kamal
नमस्ते नमस्कार धन्यवाद शुक्रिया बहुत अच्छा अच्छी ठीक है जी हाँ हां नहीं अलविदा आप कैसे हैं का वाह
"""
_BOILERPLATE = """
as an ai|let me know|feel free|i hope this|hope this helps|hope that helps|happy to help|glad to help
here to help
great question|good question|is there anything else|anything else i can|how can i help|how can i assist
how may i
i'm sorry to hear|i understand|i'd be happy|of course|certainly|you're welcome|if you have any|if you'd like
would you like me
don't hesitate|it's important to note|in conclusion|in summary|overall|here are some|here is a|here's a
keep in mind
مزید مدد|بتائیے گا|ضرور بتائیں|مدد کر سکتا|خوشی ہوگی|کوئی اور سوال|امید ہے
mazeed madad|zaroor batayein|madad kar sakta|khushi hogi|koi aur sawal|umeed hai
और मदद|ज़रूर बताइए|मदद कर सकता|खुशी होगी|कोई और सवाल|उम्मीद है
"""


def fold(text: str) -> str:
    """`text` as cues are compared: the same letters for the same word, however it was typed."""
    return text.lower().translate(_FOLDED)


def words(folded: str) -> list[str]:
    """The words of a folded text."""
    return _WORD.findall(folded)


def _phrases(source: str) -> Iterator[str]:
    for line in source.split("\n"):
        yield from (" ".join(words(fold(phrase))) for phrase in line.split("|") if phrase)


CATEGORIES = {
    "decision": frozenset(_phrases(_DECISIONS)),
    "wish": frozenset(_phrases(_WISHES)),
    "identity": frozenset(_phrases(_IDENTITY)),
    "name": frozenset(_phrases(_NAMES)),
    "finding": frozenset(_phrases(_FINDINGS)),
    "time": frozenset(_phrases(_TIMES)),
    "amount": frozenset(_phrases(_AMOUNTS)),
    "open": frozenset(_phrases(_OPEN)),
    "boilerplate": frozenset(_phrases(_BOILERPLATE)),
}
PLEASANTRIES = frozenset(words(fold(_PLEASANTRIES)))
_BY_PHRASE: dict[str, list[str]] = {}
for _category, _members in CATEGORIES.items():
    for _phrase in _members:
        _BY_PHRASE.setdefault(_phrase, []).append(_category)
_FIRST_OF_SEVERAL = frozenset(phrase.split()[0] for phrase in _BY_PHRASE if " " in phrase)
_LONGEST = 4  # words of a phrase


def cues(found: Sequence[str]) -> dict[str, int]:
    """How many phrases of each category there are among the words `found`."""
    counts: dict[str, int] = {}
    for at, word in enumerate(found):
        hits = _BY_PHRASE.get(word, [])
        if word in _FIRST_OF_SEVERAL:
            hits = [*hits]
            for length in range(2, _LONGEST + 1):
                hits += _BY_PHRASE.get(" ".join(found[at : at + length]), ())
        for category in hits:
            counts[category] = counts.get(category, 0) + 1
    return counts
