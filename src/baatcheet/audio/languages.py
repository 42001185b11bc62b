"""Languages as Whisper names them, and their ISO 639 codes."""

_NAMES = """
afrikaans af albanian sq amharic am arabic ar armenian hy assamese as azerbaijani az bashkir ba basque eu
belarusian be bengali bn bosnian bs breton br bulgarian bg cantonese yue catalan ca chinese zh croatian hr czech cs
danish da dutch nl english en estonian et faroese fo finnish fi french fr galician gl georgian ka german de greek el
gujarati gu haitian_creole ht hausa ha hawaiian haw hebrew he hindi hi hungarian hu icelandic is indonesian id
italian it japanese ja javanese jw kannada kn kazakh kk khmer km korean ko lao lo latin la latvian lv lingala ln
lithuanian lt luxembourgish lb macedonian mk malagasy mg malay ms malayalam ml maltese mt maori mi marathi mr
mongolian mn myanmar my nepali ne norwegian no nynorsk nn occitan oc pashto ps persian fa polish pl portuguese pt
punjabi pa romanian ro russian ru sanskrit sa serbian sr shona sn sindhi sd sinhala si slovak sk slovenian sl
somali so spanish es sundanese su swahili sw swedish sv tagalog tl tajik tg tamil ta tatar tt telugu te thai th
tibetan bo turkish tr turkmen tk ukrainian uk urdu ur uzbek uz vietnamese vi welsh cy yiddish yi yoruba yo
mandarin zh burmese my castilian es flemish nl valencian ca moldavian ro pushto ps haitian ht sinhalese si
"""
_words = _NAMES.split()
_CODES = dict(zip((name.replace("_", " ") for name in _words[::2]), _words[1::2], strict=True))
_NAMED = {code: name for name, code in reversed(_CODES.items())}


def code_of(said: str | None) -> str | None:
    """The code of a language that an engine has named: `English`, `english` and `en` are `en`. None: not known."""
    if said is None:
        return None
    word = said.strip().lower()
    if word in _CODES:
        return _CODES[word]
    code = word.replace("_", "-").partition("-")[0]
    return code if code in _NAMED else None


def name_of(code: str) -> str:
    """`english` of `en`; a code that is not known is its own name."""
    return _NAMED.get(code.partition("-")[0].lower(), code)
