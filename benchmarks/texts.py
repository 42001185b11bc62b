"""Texts to count: sentences of several languages, this package's own source, and what nobody would write."""

# ruff: noqa: RUF001 - several scripts, each meant

import random
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "baatcheet"

SENTENCES: Mapping[str, tuple[str, ...]] = {
    "english": (
        "The glacier above the village has retreated by almost forty metres since my grandfather's time.",
        "Could you help me write a polite letter to the landlord about the broken heating?",
        "I don't think that's the right approach, because the database would have to be locked for hours.",
        "She had been working at the hospital for eleven years when the new ward was finally opened.",
        "Bread, onions, two kilos of potatoes, and whatever fruit looks good today.",
        "According to the report, unemployment fell slightly in the third quarter, although wages did not rise.",
        "It's raining again; let's stay in, drink tea and watch that documentary about octopuses.",
        "Please summarise the meeting in five bullet points and mention who is responsible for what.",
        "What is the difference between a comet, an asteroid and a meteorite?",
        "Photosynthesis converts light energy into chemical energy that plants store as carbohydrates.",
    ),
    "urdu": (
        "میرے دادا کے زمانے سے اب تک گاؤں کے اوپر والا گلیشیئر تقریباً چالیس میٹر پیچھے ہٹ چکا ہے۔",
        "کیا آپ مالک مکان کو خراب ہیٹر کے بارے میں ایک شائستہ خط لکھنے میں میری مدد کر سکتے ہیں؟",
        "میرے خیال میں یہ طریقہ درست نہیں، کیونکہ اس سے سارا نظام کئی گھنٹے بند رہے گا۔",
        "نیا شعبہ کھلنے تک وہ گیارہ سال سے ہسپتال میں کام کر رہی تھی۔",
        "روٹی، پیاز، دو کلو آلو اور آج جو بھی پھل اچھا لگے لے آنا۔",
        "رپورٹ کے مطابق تیسری سہ ماہی میں بے روزگاری میں معمولی کمی آئی، مگر تنخواہیں نہیں بڑھیں۔",
        "پھر بارش ہو رہی ہے، چلو گھر پر ہی رہتے ہیں، چائے پیتے ہیں اور کوئی کتاب پڑھتے ہیں۔",
        "براہ کرم اجلاس کا خلاصہ پانچ نکات میں لکھیں اور بتائیں کہ کون کس کام کا ذمہ دار ہے۔",
        "دم دار ستارے، سیارچے اور شہاب ثاقب میں کیا فرق ہے؟",
        "پودے روشنی کی توانائی کو کیمیائی توانائی میں بدل کر خوراک کی شکل میں محفوظ کر لیتے ہیں۔",
    ),
    "hindi": (
        "मेरे दादाजी के समय से अब तक गाँव के ऊपर का हिमनद लगभग चालीस मीटर पीछे हट चुका है।",
        "क्या आप मकान मालिक को ख़राब हीटर के बारे में एक विनम्र पत्र लिखने में मेरी मदद कर सकते हैं?",
        "मुझे नहीं लगता कि यह सही तरीका है, क्योंकि इससे पूरी व्यवस्था कई घंटे बंद रहेगी।",
        "नया विभाग खुलने तक वह ग्यारह साल से अस्पताल में काम कर रही थी।",
        "रोटी, प्याज़, दो किलो आलू और आज जो भी फल अच्छा दिखे ले आना।",
        "रिपोर्ट के अनुसार तीसरी तिमाही में बेरोज़गारी थोड़ी घटी, लेकिन वेतन नहीं बढ़े।",
        "फिर बारिश हो रही है, चलो घर पर ही रहते हैं, चाय पीते हैं और कोई किताब पढ़ते हैं।",
        "कृपया बैठक का सारांश पाँच बिंदुओं में लिखें और बताएँ कि किस काम के लिए कौन ज़िम्मेदार है।",
        "धूमकेतु, क्षुद्रग्रह और उल्कापिंड में क्या अंतर है?",
        "पौधे प्रकाश की ऊर्जा को रासायनिक ऊर्जा में बदलकर भोजन के रूप में संचित कर लेते हैं।",
    ),
    "cjk": (
        "村の上の氷河は、祖父の時代から四十メートル近くも後退してしまった。",
        "请用五个要点总结这次会议，并说明每项工作由谁负责。",
        "彗星、小行星和流星体之间有什么区别？",
        "새로운 병동이 문을 열 때까지 그녀는 병원에서 십일 년 동안 일했다.",
        "また雨が降っている。家でお茶を飲みながら本でも読もう。",
    ),
    "emoji": ("👩‍👩‍👧‍👦😀🎉", "🇵🇰🇮🇳 👍🏽", "🏔️❄️☕", "😂😂😂", "❤️‍🔥✨"),
}


def sentences(kind: str, characters: int, chance: random.Random) -> str:
    """A text of `kind` of about so many characters; `code` is lines of this package."""
    if kind == "code":
        files = sorted(SOURCE.rglob("*.py"))
        text = ""
        while len(text) < characters:
            lines = chance.choice(files).read_text(encoding="utf-8").splitlines(keepends=True)
            at = chance.randrange(max(1, len(lines) - 20))
            text += "".join(lines[at : at + 60])
        return text[:characters]
    made: list[str] = []
    size = 0
    while size < characters:
        made.append(chance.choice(SENTENCES[kind]))
        size += len(made[-1]) + 1
        if chance.random() < 0.1:
            made.append("\n\n")
    return " ".join(made)


def mixed(characters: int, chance: random.Random) -> str:
    """A text of every kind."""
    kinds = [*SENTENCES, "code"]
    parts = [sentences(kind, characters // len(kinds) // 4, chance) for kind in kinds * 4]
    chance.shuffle(parts)
    return "\n".join(parts)


def hostile(size: int) -> dict[str, str]:
    """Texts of about `size` bytes that take some tokenizers long, or down."""
    chance = random.Random(1)
    noise = bytes(chance.getrandbits(8) for _ in range(size)).decode("utf-8", "replace")
    return {
        "blanks": " " * size,
        "one_letter": "a" * size,
        "slashes": "/" * size,
        "combining_marks": "e" + "\u0301" * (size // 2),
        "random_bytes": noise[: size // 2],
    }
