"""Making a picture of a page easy to read: even, dark on light, clean, straight and large enough.

All of it with Pillow, in grey. A `View` knows where each of its pixels was on the page, however it was turned and
scaled, so that what is found on it can be told in the page's own pixels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from PIL import Image, ImageChops, ImageFilter, ImageMath, ImageOps, ImageStat

from baatcheet.attachments.ocr.engine import Box

MOST_PIXELS: Final = 20_000_000  # of a page that is worked on: A4 at 400 dots an inch
WHITE: Final = 255
LEAN: Final = 15  # degrees that a page may lie askew and still be straightened
DARK_PAGE: Final = 110  # grey level: where half of a page is darker, it is light on dark
UNEVEN: Final = 20  # grey levels between the paper's darkest and lightest parts that are evened out
GRAINY: Final = 12.0  # grey levels of noise that are smoothed away
SPECKLED: Final = 0.004  # share of pixels that are specks
TALL_ENOUGH: Final = (
    22  # pixels of a line of text, from the top of its tallest letter to the bottom of its lowest
)
TOO_TALL: Final = 60
BEST_HEIGHT: Final = 30
MOST_ENLARGED: Final = 4.0
NEARLY_BLACK, NEARLY_WHITE = 0.05, 0.15  # shares of the way from ink to paper
BORDER: Final = 24  # pixels of paper around everything: engines miss what touches an edge

Care = Literal["usual", "harsh", "gentle"]
Matrix = tuple[float, float, float, float, float, float]
"""What maps x, y to a·x + b·y + c, d·x + e·y + f."""

_SAME: Final[Matrix] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_QUARTERS: Final = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class View:
    """A picture made of a page. `place` maps its pixels to the page's; `turned` is what it was turned back by."""

    image: Image.Image
    place: Matrix = _SAME
    turned: float = 0.0

    def scaled(self, factor: float) -> "View":
        """The same, `factor` times as large."""
        width, height = (max(1, round(side * factor)) for side in self.image.size)
        how = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.BOX
        horizontal, vertical = self.image.width / width, self.image.height / height
        place = _after(self.place, (horizontal, 0.0, 0.0, 0.0, vertical, 0.0))
        return View(self.image.resize((width, height), how), place, self.turned)

    def quartered(self, degrees: int) -> "View":
        """Turned counter-clockwise by 0, 90, 180 or 270 degrees."""
        if degrees == 0:
            return self
        width, height = self.image.size
        step: Matrix = {
            90: (0.0, -1.0, float(width), 1.0, 0.0, 0.0),
            180: (-1.0, 0.0, float(width), 0.0, -1.0, float(height)),
            270: (0.0, 1.0, 0.0, -1.0, 0.0, float(height)),
        }[degrees]
        return View(
            self.image.transpose(_QUARTERS[degrees]), _after(self.place, step), (self.turned + degrees) % 360
        )

    def straightened(self, degrees: float) -> "View":
        """Turned counter-clockwise by a few degrees; what comes in at the corners is white."""
        width, height = self.image.size
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        wide = math.ceil(abs(width * cosine) + abs(height * sine))
        high = math.ceil(abs(width * sine) + abs(height * cosine))
        # Around the middle of both; the y axis points down.
        left = width / 2 - cosine * wide / 2 + sine * high / 2
        top = height / 2 - sine * wide / 2 - cosine * high / 2
        step: Matrix = (cosine, -sine, left, sine, cosine, top)
        image = self.image.transform(
            (wide, high), Image.Transform.AFFINE, step, Image.Resampling.BICUBIC, fillcolor=WHITE
        )
        return View(image, _after(self.place, step), self.turned + degrees)

    def bordered(self, width: int = BORDER) -> "View":
        """With white around it."""
        place = _after(self.place, (1.0, 0.0, -float(width), 0.0, 1.0, -float(width)))
        return View(ImageOps.expand(self.image, width, WHITE), place, self.turned)

    def on_page(self, box: tuple[int, int, int, int], page: tuple[int, int]) -> Box:
        """The smallest rectangle around `box`, in the pixels of a page of that size."""
        a, b, c, d, e, f = self.place
        left, top, right, bottom = box
        corners = [(x, y) for x in (left, right) for y in (top, bottom)]
        across = [a * x + b * y + c for x, y in corners]
        down = [d * x + e * y + f for x, y in corners]
        width, height = page
        return Box(
            _within(math.floor(min(across) + 0.5), width),
            _within(math.floor(min(down) + 0.5), height),
            _within(math.ceil(max(across) - 0.5), width),
            _within(math.ceil(max(down) - 0.5), height),
        )


def _after(outer: Matrix, inner: Matrix) -> Matrix:
    """`inner`, then `outer`."""
    a, b, c, d, e, f = outer
    g, h, i, j, k, m = inner
    return (
        a * g + b * j, a * h + b * k, a * i + b * m + c,
        d * g + e * j, d * h + e * k, d * i + e * m + f,
    )  # fmt: skip


def _within(value: int, most: int) -> int:
    return max(0, min(most, value))


# Light and dirt ---------------------------------------------------------------------------------------------


def grey(image: Image.Image) -> Image.Image:
    """`image` in grey: as bright as it looks, or the channel that shows most where colours hide it."""
    if image.mode == "L":
        return image
    plain = image.convert("L")
    if image.mode != "RGB":
        return plain
    channels = image.split()
    best = max(channels, key=_spread)
    return best if _spread(best) > 2 * _spread(plain) else plain


def _spread(image: Image.Image) -> float:
    levels = image.reduce(2).histogram() if min(image.size) > 2 else image.histogram()
    return 1.0 + _level(levels, 0.99) - _level(levels, 0.01)


def clean(image: Image.Image, care: Care = "usual") -> Image.Image:
    """A grey picture as dark letters on white paper, without its specks and noise.

    `harsh`: at the cost of thin strokes. `gentle`: at the cost of a clean background.
    """
    if _level(image.histogram(), 0.5) < DARK_PAGE:
        image = ImageOps.invert(image)
    noise = noise_of(image)
    specks = _specks(image, 1)
    if noise < GRAINY and _share(specks) > SPECKLED:
        image = _without(image, specks)
        image = _without(image, _specks(image, 2)).filter(ImageFilter.GaussianBlur(1))
    elif noise >= GRAINY:
        image = image.filter(ImageFilter.GaussianBlur(min(2.0, noise / 16)))
    if care == "harsh":
        image = image.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.GaussianBlur(0.8))
    return _stretched(_evened(image), clip=care != "gentle")


def noise_of(image: Image.Image) -> float:
    """The standard deviation of the noise in grey levels (Immerkær's estimate, of medians: letters don't count)."""
    width, height = (min(side, 1200) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    some = image.crop((left, top, left + width, top + height))
    # A pixel against its eight neighbours, in quarters around the middle of the scale: noise of 1 makes 1.5.
    kernel = ImageFilter.Kernel((3, 3), (1, -2, 1, -2, 4, -2, 1, -2, 1), scale=4, offset=128)
    found = ImageChops.difference(some.filter(kernel), Image.new("L", some.size, 128))
    return _level(found.histogram(), 0.5) / 0.6745 / 1.5


def _specks(image: Image.Image, neighbours: int) -> Image.Image:
    """White where a pixel is much darker or lighter than all around it but for `neighbours` less one."""

    def white_if_much(value: int) -> int:
        return WHITE if value > 50 else 0

    lowest = image.filter(ImageFilter.RankFilter(3, neighbours))
    highest = image.filter(ImageFilter.RankFilter(3, 8 - neighbours))
    dark = ImageChops.subtract(lowest, image).point(white_if_much)
    light = ImageChops.subtract(image, highest).point(white_if_much)
    return ImageChops.lighter(dark, light)


def _without(image: Image.Image, specks: Image.Image) -> Image.Image:
    return Image.composite(image.filter(ImageFilter.MedianFilter(3)), image, specks)


def _share(mask: Image.Image) -> float:
    return ImageStat.Stat(mask).mean[0] / WHITE


def _evened(image: Image.Image) -> Image.Image:
    """As if the light had fallen on it evenly: every pixel against the paper around it."""
    step = max(1, min(image.size) // 150)
    small = image.reduce(step) if step > 1 else image
    paper = small.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.MaxFilter(11))
    paper = paper.filter(ImageFilter.GaussianBlur(6))
    levels = paper.histogram()
    if _level(levels, 0.98) - _level(levels, 0.02) < UNEVEN:
        return image
    paper = paper.resize(image.size, Image.Resampling.BILINEAR)
    evened: Image.Image = ImageMath.lambda_eval(
        lambda of: of["convert"](of["min"](of["page"] * WHITE / of["max"](of["paper"], 1), WHITE), "L"),
        page=image,
        paper=paper,
    )
    return evened


def _stretched(image: Image.Image, *, clip: bool) -> Image.Image:
    """With ink black and paper white; `clip`: what is nearly the one or the other too."""
    smooth = image.filter(ImageFilter.BoxBlur(1))
    darkest, lightest = smooth.getextrema()
    assert isinstance(darkest, int)  # it has one channel
    assert isinstance(lightest, int)
    white = min(_level(smooth.histogram(), 0.995), lightest)
    if white - darkest < 8:
        return image
    span = white - darkest
    black, white = float(darkest), float(white)
    if clip:
        black, white = black + span * NEARLY_BLACK, white - span * NEARLY_WHITE
    return image.point(
        [_within(round((value - black) * WHITE / (white - black)), WHITE) for value in range(256)]
    )


def is_blank(image: Image.Image) -> bool:
    """Whether a clean page has nothing on it."""
    return ImageStat.Stat(image).stddev[0] < 1.0


def _level(histogram: Iterable[int], share: float) -> int:
    """The grey level that `share` of the pixels do not exceed."""
    counts = list(histogram)
    wanted, seen = share * sum(counts), 0
    for level, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return level
    return WHITE


# Which way it lies --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lie:
    """How lines may run: `quarter` is 0 for across and 90 for up or down, `lean` what they rise beside that.

    `sharpness` compares: the more it is, the more clearly lines alternate with what is between them.
    """

    quarter: int
    lean: float
    sharpness: float


def lies(image: Image.Image) -> list[Lie]:
    """How the lines of a clean page run, across and down, the likelier first.

    Lines that run along the rows of a picture make rows of ink between rows of paper; how much so is tried for every
    degree, and around the best for every quarter of one.
    """
    coarse, fine = _ink(image, 500), _ink(image, 1100)
    return sorted([_lie(coarse, fine, quarter) for quarter in (0, 90)], key=lambda lie: -lie.sharpness)


def _ink(image: Image.Image, side: int) -> Image.Image:
    step = max(1, round(max(image.size) / side))
    return ImageOps.invert(image.reduce(step) if step > 1 else image)


def _lie(coarse: Image.Image, fine: Image.Image, quarter: int) -> Lie:
    if quarter:
        coarse, fine = (one.transpose(Image.Transpose.ROTATE_90) for one in (coarse, fine))
    near = max(range(-LEAN, LEAN + 1), key=lambda degrees: _sharpness(coarse, degrees))
    sharp = {near + part / 4: _sharpness(fine, near + part / 4) for part in range(-4, 5)}
    lean = max(sharp, key=lambda degrees: sharp[degrees])
    return Lie(quarter, lean, sharp[lean])


def _sharpness(ink: Image.Image, degrees: float) -> float:
    turned = ink.rotate(degrees, Image.Resampling.BILINEAR) if degrees else ink
    rows = turned.convert("F").resize((1, turned.height), Image.Resampling.BOX)
    # The mean of many letters varies less than that of few: the width makes pages of any shape comparable.
    means = memoryview(rows.tobytes()).cast("f")
    changes = sum((means[at] - means[at + 1]) ** 2 for at in range(len(means) - 1))
    return turned.width * changes


def fitting(heights: Iterable[int]) -> float:
    """How much larger a page should be, given the heights of its lines in pixels; 1 where it is right."""
    known = sorted(height for height in heights if height > 0)
    if not known:
        return 1.0
    middle = known[len(known) // 2]
    if TALL_ENOUGH <= middle <= TOO_TALL:
        return 1.0
    return min(MOST_ENLARGED, BEST_HEIGHT / middle)


def bounded(image: Image.Image, most: int = MOST_PIXELS) -> View:
    """`image` with at most `most` pixels."""
    view = View(image)
    excess = image.width * image.height / most
    return view.scaled(math.sqrt(1 / excess)) if excess > 1 else view
