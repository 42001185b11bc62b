"""Printed pages, made for the test: known texts drawn in several fonts, and then spoilt in known ways."""

# ruff: noqa: RUF001, ISC004 - several scripts, each meant; long texts, each of several lines

import io
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

FOLDERS = (Path("/usr/share/fonts/truetype"), Path("/usr/local/share/fonts"), Path.home() / ".fonts")
Spoiling = Callable[[Image.Image], Image.Image]

TEXTS: Mapping[str, tuple[str, ...]] = {
    "eng": (
        "The survey of the upper valley was finished on 14 October 1987, three weeks later than planned. Rain had "
        "washed away the footbridge at Kestrel Point, and the mules could not be persuaded to wade. We measured "
        "twenty-six stations in all; the lowest lies 812 metres above the sea, the highest 2,347. Every figure in "
        "this report was taken twice, by different observers, and where the two differed by more than half a per "
        'cent the station was visited again. "It is dull work," wrote Quentin Frazer in his journal, "but what '
        'is measured badly must be measured again, and what is measured well need not be."',
        "Dear Ms Whitfield, thank you for your letter of 3 March. I am sorry that the parcel (order no. 48-1907/B) "
        "reached you damaged. A replacement left our warehouse this morning and should be with you by Friday; you "
        "need not send the broken one back. We have also refunded the postage of £7.45 to your card. If anything "
        "else is missing, please ring 01632 960 117 between 9 a.m. and 5 p.m., or write to help@example.org. With "
        "kind regards, J. Okafor, Customer Service.",
        "Fold the flour into the butter and sugar, then add four eggs, one at a time, and a pinch of salt. Grate "
        "the zest of two lemons over the bowl. Bake at 180 degrees for about 35 minutes, until a skewer comes out "
        "clean; the top should be the colour of hazelnuts. While it is still hot, prick it all over and pour the "
        "juice on. Waiting is the hardest part: it keeps for a week in a tin, and is at its best on the third day.",
    ),
    "urd": (
        "ہمارے گاؤں کا پرانا کتب خانہ دریا کے کنارے واقع ہے۔ اس کی عمارت سو سال سے زیادہ پرانی ہے اور اس میں بیس ہزار "
        "سے زائد کتابیں محفوظ ہیں۔ ہر جمعے کو بچے یہاں کہانیاں سننے آتے ہیں۔ پچھلے سال بارش کی وجہ سے چھت ٹپکنے لگی "
        "تھی، مگر لوگوں نے مل کر اس کی مرمت کر لی۔ اب یہاں بجلی بھی ہے اور پڑھنے کے لیے ایک بڑا کمرہ بھی۔",
        "لاہور سے گلگت تک کا سفر بہت لمبا ہے لیکن راستے کے نظارے تھکن بھلا دیتے ہیں۔ پہاڑوں پر برف جمی رہتی ہے اور "
        "وادیوں میں خوبانی کے درخت پھول دیتے ہیں۔ شام کو مسافر چائے خانوں میں بیٹھ کر اپنے دن کا حال سناتے ہیں۔",
    ),
    "ara": (
        "تقع المكتبة القديمة على ضفة النهر، وقد بنيت قبل أكثر من مئة عام. تضم المكتبة عشرين ألف كتاب، ويزورها الطلاب "
        "كل يوم من الصباح حتى المساء. في العام الماضي تسرب المطر من السقف، فتعاون أهل المدينة على إصلاحه. والآن توجد "
        "فيها قاعة كبيرة للقراءة وحديقة صغيرة للأطفال.",
    ),
    "hin": (
        "हमारे गाँव का पुराना पुस्तकालय नदी के किनारे बना है। उसकी इमारत सौ साल से अधिक पुरानी है और उसमें बीस हज़ार से "
        "ज़्यादा किताबें रखी हैं। हर शुक्रवार को बच्चे यहाँ कहानियाँ सुनने आते हैं। पिछले साल बारिश के कारण छत टपकने लगी "
        "थी, लेकिन लोगों ने मिलकर उसकी मरम्मत कर ली। अब यहाँ बिजली भी है और पढ़ने के लिए एक बड़ा कमरा भी।",
    ),
}

FONTS: Mapping[str, tuple[str, ...]] = {
    "eng": (
        "LiberationSerif-Regular.ttf",
        "LiberationSans-Regular.ttf",
        "DejaVuSerif.ttf",
        "DejaVuSans.ttf",
        "LiberationMono-Regular.ttf",
    ),
    "urd": ("NotoNaskhArabic-Regular.ttf",),
    "urd_nastaliq": ("NotoNastaliqUrdu-Regular.ttf",),
    "ara": ("NotoNaskhArabic-Regular.ttf", "NotoSansArabic-Regular.ttf"),
    "hin": ("NotoSansDevanagari-Regular.ttf", "NotoSerifDevanagari-Regular.ttf"),
}


class FontMissing(Exception):
    """A font that is needed is not installed."""


def font_file(name: str) -> Path:
    """Where the font file `name` is. Raises FontMissing."""
    for folder in FOLDERS:
        for found in folder.rglob(name) if folder.is_dir() else ():
            return found
    raise FontMissing(name)


@dataclass(frozen=True)
class Sheet:
    """How a page is drawn. Sizes are pixels."""

    font: str = "LiberationSerif-Regular.ttf"
    size: int = 44  # of the font: about 11 points at 300 dots an inch
    width: int = 2000  # of the text
    margin: int = 120
    ink: int = 0
    paper: int = 255
    right_to_left: bool = False


def lines_of(text: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """`text` broken into lines of at most `width` pixels."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            yield line
            line = word
        else:
            line = longer
    yield line


def draw(text: str, sheet: Sheet) -> Image.Image:
    """A page, in grey. Raises FontMissing."""
    font = ImageFont.truetype(str(font_file(sheet.font)), sheet.size, layout_engine=ImageFont.Layout.RAQM)
    lines = list(lines_of(text, font, sheet.width))
    ascent, descent = font.getmetrics()
    height = round((ascent + descent) * 1.15)
    page = Image.new(
        "L", (sheet.width + 2 * sheet.margin, height * len(lines) + 2 * sheet.margin), sheet.paper
    )
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        left = sheet.margin
        if sheet.right_to_left:
            left = round(sheet.margin + sheet.width - font.getlength(line))
        pen.text((left, sheet.margin + number * height), line, font=font, fill=sheet.ink)
    return page


def small(size: int) -> Callable[[Sheet], Sheet]:
    """The same page with letters of `size` pixels, as on a screen."""

    def shrink(sheet: Sheet) -> Sheet:
        width = round(sheet.width * size / sheet.size)
        return Sheet(
            sheet.font, size, width, max(12, sheet.margin * size // sheet.size), sheet.ink, sheet.paper,
            sheet.right_to_left,
        )  # fmt: skip

    return shrink


def faint(ink: int, paper: int) -> Callable[[Sheet], Sheet]:
    """The same page in another ink on other paper."""
    return lambda sheet: Sheet(
        sheet.font, sheet.size, sheet.width, sheet.margin, ink, paper, sheet.right_to_left
    )


def turned(degrees: float) -> Spoiling:
    """The page turned clockwise by a quarter, a half, or by a little."""

    def turn(page: Image.Image) -> Image.Image:
        if degrees % 90 == 0:
            return page.rotate(-degrees, expand=True)
        paper = page.getpixel((0, 0))
        return page.rotate(-degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=paper)

    return turn


def grainy(strength: float, seed: int = 7) -> Spoiling:
    """Noise of a camera in the dark: `strength` is the standard deviation in grey levels."""

    def spoil(page: Image.Image) -> Image.Image:
        chance = random.Random(seed)
        # The noise is drawn small and tiled: what is random about it does not matter, and time does.
        side = 512
        values = bytes(max(0, min(255, round(128 + chance.gauss(0, strength)))) for _ in range(side * side))
        tile = Image.frombytes("L", (side, side), values)
        noise = Image.new("L", page.size)
        for left in range(0, page.width, side):
            for top in range(0, page.height, side):
                noise.paste(tile, (left, top))
        return ImageChops.add(page, noise, 1, -128)

    return spoil


def specked(share: float, seed: int = 7) -> Spoiling:
    """Dust: that share of pixels is black or white."""

    def spoil(page: Image.Image) -> Image.Image:
        chance = random.Random(seed)
        spoilt = page.copy()
        pixels = spoilt.load()
        assert pixels is not None
        for _ in range(round(page.width * page.height * share)):
            pixels[chance.randrange(page.width), chance.randrange(page.height)] = chance.choice((0, 255))
        return spoilt

    return spoil


def shaded(page: Image.Image) -> Image.Image:
    """A shadow over one side, as in a photograph of a page."""
    shadow = Image.linear_gradient("L").rotate(70, expand=False).resize(page.size)
    shadow = shadow.point(lambda value: 110 + value * 145 // 255)
    return ImageChops.multiply(page, shadow)


def blurred(radius: float) -> Spoiling:
    return lambda page: page.filter(ImageFilter.GaussianBlur(radius))


def pressed(quality: int) -> Spoiling:
    """JPEG of that quality."""

    def spoil(page: Image.Image) -> Image.Image:
        kept = io.BytesIO()
        page.save(kept, "JPEG", quality=quality)
        return Image.open(kept).convert("L")

    return spoil


def inverted(page: Image.Image) -> Image.Image:
    return ImageOps.invert(page)


def flattened(factor: float) -> Spoiling:
    return lambda page: ImageEnhance.Contrast(page).enhance(factor)


@dataclass(frozen=True)
class Condition:
    """One way in which a page can be hard to read."""

    name: str
    sheet: Callable[[Sheet], Sheet] = lambda sheet: sheet
    spoil: tuple[Spoiling, ...] = ()

    def page(self, text: str, sheet: Sheet) -> Image.Image:
        page = draw(text, self.sheet(sheet))
        for spoil in self.spoil:
            page = spoil(page)
        return page


CONDITIONS: tuple[Condition, ...] = (
    Condition("clean"),
    Condition("small_20", small(20)),
    Condition("small_14", small(14)),
    Condition("small_12", small(12)),
    Condition("noise_gauss", spoil=(grainy(40),)),
    Condition("noise_heavy", spoil=(grainy(80),)),
    Condition("noise_specks", spoil=(specked(0.03),)),
    Condition("turned_90", spoil=(turned(90),)),
    Condition("turned_180", spoil=(turned(180),)),
    Condition("turned_270", spoil=(turned(270),)),
    Condition("skewed_2", spoil=(turned(2),)),
    Condition("skewed_-4", spoil=(turned(-4),)),
    Condition("skewed_8", spoil=(turned(8),)),
    Condition("faint", faint(150, 190)),
    Condition("faint_noise", faint(120, 180), (grainy(10),)),
    Condition("shaded", spoil=(shaded,)),
    Condition("inverted", spoil=(inverted,)),
    Condition("blurred", spoil=(blurred(2.5),)),
    Condition("jpeg", small(24), (pressed(25),)),
    Condition("photo", faint(60, 210), (turned(3), shaded, blurred(1.2), grainy(12), pressed(60))),
    Condition("small_turned_noise", small(18), (grainy(12), turned(180))),
)


def sheets(language: str) -> Iterator[Sheet]:
    """A sheet for each font of a language."""
    for font in FONTS[language]:
        yield Sheet(font=font, right_to_left=language[:3] in {"urd", "ara"})
