"""Make the fonts of src/baatcheet/exports/fonts again, from Noto's. Only needed to change what they hold.

    python3 -m venv /tmp/fonts && /tmp/fonts/bin/pip install fonttools
    /tmp/fonts/bin/pip download --no-deps -d /tmp/fonts manimgx-fonts   # Noto's variable fonts, in a wheel
    (cd /tmp/fonts && python3 -m zipfile -e manimgx_fonts-*.whl noto)
    apt-get install fonts-noto-core                                     # Noto Naskh Arabic, Math and Symbols
    /tmp/fonts/bin/python scripts/vendor_fonts.py /tmp/fonts/noto/manimgx_fonts

Each is cut to the scripts that it is there for, at a fixed weight, without hints; the families get names of our own,
so that a machine's own Noto never takes their place.
"""

# ruff: noqa: INP001 - a program

import sys
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from fontTools.varLib import instancer

DEBIAN = Path("/usr/share/fonts/truetype/noto")
TARGET = Path(__file__).parent.parent / "src/baatcheet/exports/fonts"

# Letters that look small beside Latin ones of the same size.
LARGER = {"BaatCheet Naskh": 1.12}

# Styles that nothing here asks for.
_UNUSED = {
    "smcp",
    "c2sc",
    "onum",
    "pnum",
    "lnum",
    "tnum",
    "sups",
    "subs",
    "sinf",
    "numr",
    "dnom",
    "frac",
    "ordn",
}
_UNUSED |= {"case", "salt", "aalt", "titl", "zero", "unic", "pcap", "c2pc", "afrc", "hist"}
_UNUSED |= {f"ss{number:02}" for number in range(1, 21)} | {f"cv{number:02}" for number in range(1, 100)}


def _ranges(*texts: str) -> set[int]:
    found: set[int] = set()
    for text in texts:
        first, _, last = text.partition("-")
        found |= set(range(int(first, 16), int(last or first, 16) + 1))
    return found


CORE = _ranges(
    *("0020-007E", "00A0-024F", "0300-036F", "0370-03FF", "0400-045F", "0490-0491", "1E00-1EFF", "2000-206F"),
    *("2070-209F", "20A0-20CF", "2100-214F", "2190-2199", "2212", "2248", "2260", "2264", "2265", "FFFD"),
)
LATIN = CORE | _ranges(
    *("0250-02FF", "0460-052F", "1D00-1DBF", "1DC4-1DFF", "1F00-1FFF", "20D0-20F0", "2150-218F", "2C60-2C7F"),
    *(
        "A640-A69F",
        "A720-A7FF",
        "AB30-AB6F",
        "FB00-FB06",
        "FE20-FE2F",
        "FFFC",
        "2215",
        "2219",
        "221A",
        "221E",
    ),
    *("222B", "25CC", "2202", "2206", "220F", "2211"),
)
ARABIC = _ranges(
    *(
        "0020",
        "00A0",
        "0600-06FF",
        "0750-077F",
        "08A0-08FF",
        "FB50-FDFF",
        "FE70-FEFF",
        "200B-200F",
        "202A-202E",
    ),
    *("2066-2069", "25CC", "0028", "0029", "00AB", "00BB", "002E", "002D", "2E41", "204F"),
)
DEVANAGARI = _ranges("0020", "00A0", "0900-097F", "A8E0-A8FF", "1CD0-1CFF", "200B-200D", "25CC", "20B9")
MATH = _ranges(
    *(
        "2190-21FF",
        "2200-22FF",
        "2300-23FF",
        "27C0-27FF",
        "2900-2AFF",
        "2B00-2BFF",
        "25A0-25FF",
        "1D400-1D7FF",
    ),
    *("2016", "2032-2037"),
)
SYMBOLS = _ranges(
    *("2300-23FF", "2400-2426", "2440-245F", "2460-24FF", "25A0-25FF", "2600-26FF", "2700-27BF", "2B00-2BFF"),
    *("2800-28FF", "1F780-1F7FF", "1F650-1F67F"),
)
EVERYTHING = set(range(0x20, 0x110000))
OTHERS = (
    "Armenian",
    "Bengali",
    "Georgian",
    "Gujarati",
    "Gurmukhi",
    "Hebrew",
    "Kannada",
    "Khmer",
    "Lao",
    "Malayalam",
)
OTHERS += ("Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thai")


def make(source: Path, family: str, characters: set[int], style: str = "Regular") -> None:
    bold = "Bold" in style
    font = TTFont(source)
    if "fvar" in font:
        axes = {axis.axisTag: axis.defaultValue for axis in font["fvar"].axes}
        font = instancer.instantiateVariableFont(font, axes | {"wght": 700 if bold else 400})
    options = subset.Options(hinting=False, notdef_outline=True, name_IDs=["*"], recalc_timestamp=False)
    options.drop_tables += ["DSIG", "meta", "STAT", "avar", "MVAR", "HVAR", "BASE"]
    options.layout_features = [
        tag
        for tag in sorted(
            record.FeatureTag
            for table in ("GSUB", "GPOS")
            if table in font
            for record in font[table].table.FeatureList.FeatureRecord
        )
        if tag not in _UNUSED
    ]
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=characters & set(font.getBestCmap()))
    subsetter.subset(font)
    font["head"].unitsPerEm = round(font["head"].unitsPerEm / LARGER.get(family, 1))
    _rename(font, family, style)
    path = TARGET / f"{family.replace(' ', '')}-{style.replace(' ', '')}.ttf"
    font.save(path)
    print(f"{path.name:42} {path.stat().st_size // 1024:5} KB {len(font.getBestCmap()):6} characters")  # noqa: T201


def _rename(font: TTFont, family: str, style: str) -> None:
    names = font["name"]
    for number in (16, 17, 18, 21, 22, 25):
        names.removeNames(nameID=number)
    full = f"{family} {style}"
    for number, value in ((1, family), (2, style), (3, full), (4, full), (6, full.replace(" ", "-"))):
        names.removeNames(nameID=number)
        names.setName(value, number, 3, 1, 0x409)
    bold, italic = "Bold" in style, "Italic" in style
    font["OS/2"].usWeightClass = 700 if bold else 400
    kept = font["OS/2"].fsSelection & ~(1 | 32 | 64)
    font["OS/2"].fsSelection = kept | italic | (bold << 5) | ((not bold and not italic) << 6)
    font["head"].macStyle = bold | (italic << 1)


def main(noto: Path) -> None:
    sans, slanted = noto / "NotoSans[wght].ttf", noto / "NotoSans-Italic[wght].ttf"
    make(sans, "BaatCheet Sans", LATIN)
    make(sans, "BaatCheet Sans", CORE, "Bold")
    make(slanted, "BaatCheet Sans", CORE, "Italic")
    make(slanted, "BaatCheet Sans", CORE, "Bold Italic")
    for style in ("Regular", "Bold"):
        make(DEBIAN / f"NotoNaskhArabic-{style}.ttf", "BaatCheet Naskh", ARABIC, style)
        make(noto / "NotoSansDevanagari[wght].ttf", "BaatCheet Devanagari", DEVANAGARI, style)
    make(DEBIAN / "NotoSansMath-Regular.ttf", "BaatCheet Math", MATH)
    make(DEBIAN / "NotoSansSymbols2-Regular.ttf", "BaatCheet Symbols", SYMBOLS)
    make(noto / "NotoEmoji[wght].ttf", "BaatCheet Emoji", EVERYTHING)
    for script in OTHERS:
        make(noto / f"NotoSans{script}[wght].ttf", f"BaatCheet {script}", EVERYTHING)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
