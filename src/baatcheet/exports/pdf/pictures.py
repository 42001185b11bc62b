"""The pictures of a PDF: looked at, made no larger than a page needs, and written anew beside the templates."""

import base64
import binascii
import io
import warnings
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from baatcheet.exports.pdf.tree import Inset

FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP")
MOST_BYTES: Final = 25_000_000  # of one picture's file
MOST_PIXELS: Final = 50_000_000
MOST_PICTURES: Final = 2_000  # of one document
MOST_TOGETHER: Final = 300_000_000  # bytes of them, as they are kept
SIDE: Final = 1_600  # pixels of the longer side, as it is kept
WIDTH: Final = 480.0  # points: the text's
HEIGHT: Final = 420.0
POINTS_PER_PIXEL: Final = 0.6


class Pictures:
    """Puts pictures into `folder`, under names of their own. `left_out` counts those that can't be shown."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._taken: list[Path] = []
        self._room = MOST_TOGETHER
        self.left_out = 0

    @property
    def waiting(self) -> int:
        """How many have been put there since the last were `taken`."""
        return len(self._taken)

    def taken(self) -> list[Path]:
        """The pictures that were put there since."""
        taken, self._taken = self._taken, []
        return taken

    def of_url(self, url: str, words: str) -> Inset | None:
        """The picture that a `data:` address holds, or None."""
        _, comma, encoded = url.partition(";base64,")
        if not comma or len(encoded) > MOST_BYTES * 4 // 3 + 4:
            self.left_out += 1
            return None
        try:
            data = base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError):
            self.left_out += 1
            return None
        return self._kept(io.BytesIO(data), words)

    def of_file(self, path: Path, words: str) -> Inset | None:
        """The picture in the file at `path`, or None."""
        try:
            if path.stat().st_size > MOST_BYTES:
                self.left_out += 1
                return None
            with path.open("rb") as file:
                return self._kept(io.BytesIO(file.read()), words)
        except OSError:
            self.left_out += 1
            return None

    def _kept(self, file: io.BytesIO, words: str) -> Inset | None:
        if self._count >= MOST_PICTURES or self._room <= 0:
            self.left_out += 1
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                name, width, height = self._write(file)
        # Pillow's decoders raise almost anything on a file that is broken; a picture less is no reason to fail.
        except (
            UnidentifiedImageError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
            OSError,
            ValueError,
            SyntaxError,
            TypeError,
            IndexError,
            KeyError,
            AttributeError,
            OverflowError,
            EOFError,
        ):
            self.left_out += 1
            return None
        self._count += 1
        self._taken.append(self._folder / name)
        self._room -= self._taken[-1].stat().st_size
        points = min(WIDTH, width * POINTS_PER_PIXEL, HEIGHT * width / height)
        return Inset(name, words, points)

    def _write(self, file: io.BytesIO) -> tuple[str, int, int]:
        with Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            opened.draft("RGB", (SIDE, SIDE))
            original = opened.width, opened.height
            picture: Image.Image = ImageOps.exif_transpose(opened)
            clear = picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info
            picture = picture.convert("RGBA" if clear else "RGB")
            picture.thumbnail((SIDE, SIDE))
            photograph = opened.format in {"JPEG", "WEBP"} and not clear
            name = f"picture-{self._count}.{'jpg' if photograph else 'png'}"
            if photograph:
                picture.save(self._folder / name, "JPEG", quality=85)
            else:
                picture.save(self._folder / name, "PNG")
            turned = (original[0] > original[1]) != (picture.width > picture.height)
            return name, *(original[::-1] if turned else original)
