"""Pictures, opened with care: of one format, of a bounded size, and whole or not at all."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps

from baatcheet.attachments.kinds import KINDS
from baatcheet.attachments.ocr.engine import Page
from baatcheet.attachments.ocr.preparing import MOST_PIXELS, View, bounded, grey
from baatcheet.jobs.isolation_frames import Refused

MOST_SIDE: Final = 65_000  # pixels
SMALLEST_SIDE: Final = 64  # a picture that is to be sent is not made smaller than about this
EXIF_ORIENTATION: Final = 0x0112

Image.MAX_IMAGE_PIXELS = None  # what is too large is told by its header, and refused in words of ours


@dataclass(frozen=True)
class Picture:
    """A page as a picture: `view.image` in grey or colour, and the page's own size in pixels."""

    view: View
    width: int
    height: int


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Turns whatever a decoder raises on a damaged file into Refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (Refused, MemoryError):
        raise
    except Exception as error:  # a decoder given nonsense raises anything
        raise Refused(f"{what} is damaged or cut short, and can't be read.") from error


def opened(path: str, kind: str, max_pixels: int) -> Image.Image:
    """The picture in the file at `path`, not yet decoded. Raises Refused."""
    decoder = KINDS[kind].decoder
    assert decoder is not None
    with decoding("The picture"):
        image = Image.open(path, formats=[decoder])
    width, height = image.size
    refuse_large(width, height, max_pixels)
    return image


def refuse_large(width: int, height: int, max_pixels: int) -> None:
    """Raises Refused."""
    if width < 1 or height < 1:
        raise Refused("The picture has no pixels.")
    if width * height > max_pixels or max(width, height) > MOST_SIDE:
        raise Refused(
            f"The picture has {width:,} by {height:,} pixels; at most {max_pixels // 1_000_000} million are taken."
        )


def frames(path: str, kind: str, max_pixels: int, most: int) -> list[tuple[int, int]]:
    """The size of each page of a picture file, once its first page is known to be whole. Raises Refused.

    A TIFF may have many; of a moving picture the first frame is its page.
    """
    with opened(path, kind, max_pixels) as image, decoding("The picture"):
        image.load()
        sizes = [upright_size(image)]
        if kind == "tiff":
            for number in range(1, most + 2):
                try:
                    image.seek(number)
                except EOFError:
                    break
                if number > most - 1:
                    raise Refused(f"The file has more than {most:,} pages.")
                refuse_large(*image.size, max_pixels)
                sizes.append(upright_size(image))
    return sizes


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as the picture is to be seen."""
    width, height = image.size
    return (height, width) if image.getexif().get(EXIF_ORIENTATION, 1) in {5, 6, 7, 8} else (width, height)


def picture_of(page: Page, most: int = MOST_PIXELS) -> Picture:
    """The picture of a page of a picture file, with at most `most` pixels. Raises Refused."""
    with opened(page.path, page.kind, page.max_pixels) as image, decoding("The picture"):
        if page.number:
            image.seek(page.number)
            refuse_large(*image.size, page.max_pixels)
        width, height = upright_size(image)
        excess = math.sqrt(width * height / most)
        if excess >= 2:  # JPEG can be decoded smaller; other formats take no notice
            image.draft(None, (int(image.width / excess), int(image.height / excess)))
        image.load()
        flat = on_white(ImageOps.exif_transpose(image))
    view = bounded(flat, most)
    across, down = width / view.image.width, height / view.image.height
    return Picture(View(view.image, (across, 0.0, 0.0, 0.0, down, 0.0)), width, height)


def on_white(image: Image.Image) -> Image.Image:
    """In grey or RGB, without transparency and without more than eight bits a channel."""
    if image.mode in {"L", "RGB"}:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith(("I", "F")):
        darkest, lightest = image.getextrema()
        assert isinstance(darkest, int | float)  # it has one channel
        assert isinstance(lightest, int | float)
        if image.mode.startswith("I;16"):
            image = image.convert("I")
        span = max(1e-9, lightest - darkest)
        return (
            image.convert("F")
            .point(lambda value: value * (255 / span) + (-darkest * 255 / span))
            .convert("L")
        )
    if image.mode in {"P", "PA", "LA", "RGBA", "RGBa", "La"} or "transparency" in image.info:
        clear = image.convert("RGBA")
        paper = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, clear).convert("RGB")
    return image.convert("RGB")


def save_small(image: Image.Image, path: Path, *, most_bytes: int, most_side: int) -> tuple[int, int]:
    """Write `image` as JPEG of at most that size: nothing but its pixels, smaller where it must be. Its size then.

    Raises Refused where no size is small enough.
    """
    side = min(most_side, max(image.size))
    while True:
        factor = side / max(image.size)
        shown = image
        if factor < 1:
            size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
            shown = image.resize(size, Image.Resampling.LANCZOS)
        for quality in (90, 75, 60):
            shown.save(path, "JPEG", quality=quality)
            if path.stat().st_size <= most_bytes:
                return shown.size
        if side < SMALLEST_SIDE:
            raise Refused("The picture can't be made small enough to be sent.")
        side = side * 3 // 4


def grey_picture(picture: Picture) -> View:
    """The page in grey, for engines that read letters and not colours."""
    view = picture.view
    return View(grey(view.image), view.place)
