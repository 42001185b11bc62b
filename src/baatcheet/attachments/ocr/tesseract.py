"""Tesseract, on this machine: no key, no network. What is here runs in a sandbox (see `local` for who asks).

It is given pixels that Pillow decoded, never a file: the image libraries inside its wheel are old. A page is made easy
to read first (`preparing`), then its lines are looked for, which tells how large the letters are, then which way up
and in which script it is; read in the wrong language or upside down, a page gets a confidence below 0.5, read rightly
one above 0.55, so where there is a doubt the readings themselves decide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import msgspec
import tesserocr
from PIL import Image

from baatcheet.attachments.contents.pages import page_picture
from baatcheet.attachments.contents.pictures import grey_picture
from baatcheet.attachments.ocr.engine import Line, Page, PageText, Word
from baatcheet.attachments.ocr.languages import LANGUAGES, SCRIPT_OF, language_of, letters
from baatcheet.attachments.ocr.preparing import BORDER, Care, Lie, View, clean, fitting, is_blank, lies
from baatcheet.jobs.isolation_frames import Report

NAME: Final = "tesseract"
LEGIBLE_LINE: Final = 0.3  # and a line, on a page that has some
LEGIBLE_FEW: Final = 0.75  # and a few letters alone, on a page that is sure
SURE: Final = 0.85  # the confidence of a reading that needs no other to compare with
LIKELY: Final = 0.6  # below it, another language is tried for a line
CLEAR: Final = 0.55  # above it, a page is read in its own script
LEGIBLE: Final = 0.5  # below it, a page has no text that can be read
SHARP: Final = 2.0  # how much sharper lines across must be than down, for the latter not to be tried
SMALL: Final = 500_000  # pixels of a picture so small that it costs little to try everything
STRIP: Final = 3  # how much longer than wide a picture is that may hold one line
UPRIGHT: Final = 5.0  # Tesseract's own confidence in an orientation from which on it is believed …
SCRIPTED: Final = 1.0  # … and in a script
FEW: Final = 12  # letters that are too few to decide by
SAMPLE_LINES: Final = 8
DOUBTED_LINES: Final = 40  # lines of a page that are read in other languages too
DPI: Final = 300
MOST_WORDS: Final = 3_000  # of a page, whose places are told one by one
STEADY: Final = 0.2  # degrees that lines may rise without harm

_Place = tuple[int, int, int, int]
_PARAGRAPH, _LINE, _WORD = "3", "4", "5"  # levels of Tesseract's table

_MORE_CARE: tuple[Care, ...] = ("harsh", "gentle")
_GROUP = {"Latin": "Latin", "Fraktur": "Latin", "Arabic": "Arabic", "Devanagari": "Devanagari"}


class TesseractPage(msgspec.Struct, frozen=True):
    """A page to be read with the data in the folder `tessdata`: in one of `languages`, the likeliest first."""

    page: Page
    tessdata: str
    languages: tuple[str, ...]


def read(asked: TesseractPage, report: Report) -> PageText:
    """The text of a page. Raises Refused when its picture can't be opened."""
    picture = page_picture(asked.page)
    reader = _Reader(asked.tessdata, asked.languages)
    found = reader.read(grey_picture(picture))
    size = (picture.width, picture.height)
    if found is None:
        return PageText("", NAME, *size)
    with_words = sum(len(line.words) for line in found.lines) <= MOST_WORDS
    lines = tuple(one.on_page(found.view, size, with_words=with_words) for one in found.lines)
    return PageText(
        text=found.text,
        engine=NAME,
        width=picture.width,
        height=picture.height,
        confidence=round(found.confidence, 4) if lines else None,
        language=reader.language(found) if lines else None,
        turned=round(found.view.turned, 2) % 360,
        lines=lines,
    )


@dataclass(frozen=True)
class _Seen:
    """A line as Tesseract gave it; its boxes are in pixels of the view that was read."""

    words: tuple[tuple[str, _Place, float], ...]
    box: _Place
    language: str
    starts_paragraph: bool

    @property
    def text(self) -> str:
        return " ".join([text for text, _, _ in self.words])

    @property
    def letters(self) -> int:
        return sum(len(text) for text, _, _ in self.words)

    @property
    def own_letters(self) -> float:
        """Letters of the language's script; of what every language has, such as digits, half."""
        counts = letters(self.text)
        own = counts.pop(SCRIPT_OF[self.language])
        return own + (self.letters - own - sum(counts.values())) / 2

    @property
    def confidence(self) -> float:
        return sum(len(text) * sure for text, _, sure in self.words) / max(1, self.letters)

    def on_page(self, view: View, size: tuple[int, int], *, with_words: bool) -> Line:
        words = tuple(
            Word(text, view.on_page(box, size), round(sure, 4))
            for text, box, sure in (self.words if with_words else ())
        )
        return Line(self.text, view.on_page(self.box, size), round(self.confidence, 4), words)


@dataclass(frozen=True)
class _Reading:
    """What was read on a view in one language."""

    view: View
    language: str
    lines: tuple[_Seen, ...] = field(default=())

    @property
    def letters(self) -> int:
        return sum(line.letters for line in self.lines)

    @property
    def confidence(self) -> float:
        return sum(line.letters * line.confidence for line in self.lines) / max(1, self.letters)

    @property
    def worth(self) -> float:
        """To compare readings by: many letters of the language's own script, of which it is sure."""
        return sum(line.own_letters * max(0.0, line.confidence - 0.4) for line in self.lines)

    @property
    def sure(self) -> bool:
        return self.confidence >= SURE and self.letters >= FEW

    @property
    def text(self) -> str:
        parts: list[str] = []
        for line in self.lines:
            if parts:
                parts.append("\n\n" if line.starts_paragraph else "\n")
            parts.append(line.text)
        return "".join(parts)


@dataclass(frozen=True)
class _Guess:
    """A way in which a page may have to be read: turned by `quarter` counter-clockwise, in `language`."""

    quarter: int
    language: str


class _Reader:
    def __init__(self, tessdata: str, languages: Sequence[str]) -> None:
        self._tessdata = tessdata
        self._languages = tuple(languages)

    def language(self, reading: _Reading) -> str | None:
        """Of most of what was read: Urdu's data knows Arabic's letters, and every language's data Latin ones."""
        counts: dict[str, int] = {}
        for line in reading.lines:
            counts[line.language] = counts.get(line.language, 0) + line.letters
        most = max(counts, key=lambda one: counts[one])
        told = language_of(reading.text)
        # Of the two that share their letters the data that read it better tells; else what the letters say.
        return most if told is None or SCRIPT_OF[told] == SCRIPT_OF[most] else told

    def read(self, page: View) -> _Reading | None:
        """The best reading of a grey page; None when there is nothing that can be read."""
        cleaned = View(clean(page.image), page.place)
        if is_blank(cleaned.image):
            return None
        best = self._mended(self._read_clean(cleaned))
        for care in _MORE_CARE if best.letters else ():
            if best.sure:
                break
            cleaned = View(clean(page.image, care), page.place)
            lost = care == "harsh" and best.confidence < CLEAR
            again = self._read_clean(cleaned) if lost else self._read_as(cleaned, best)
            best = max(best, self._mended(again), key=lambda one: one.worth)
        best = replace(best, lines=tuple(line for line in best.lines if not _is_dirt(line, best)))
        return best if best.letters and best.confidence >= LEGIBLE else None

    def _read_clean(self, page: View) -> _Reading:
        """Read with lines straight and letters of the best size, the way up and in the language that suits best."""
        likely, other = _in_order(page.image, lies(page.image))
        views = [self._laid(page, likely)]
        guesses = self._guesses(views[0])
        first = self._recognized(views[0], guesses[0])
        small = page.image.width * page.image.height < SMALL
        if first.sure or not (small or first.letters or self._line_boxes(views[0])):
            return first
        if small or likely.sharpness < SHARP * other.sharpness:
            views.append(self._laid(page, other))
        best = self._best_of_samples(views, guesses, first)
        if best.letters < FEW:
            sparse = self._recognized(best.view, _Guess(0, best.language), tesserocr.PSM.SPARSE_TEXT)
            best = max(best, sparse, key=lambda one: one.worth)
        return best

    def _read_as(self, page: View, known: _Reading) -> _Reading:
        """Read in the way and the language that are known to be right."""
        turned = known.view.turned % 360
        quarter = round(turned / 90) % 4 * 90
        view = self._laid(page, Lie(quarter, (turned - quarter + 180) % 360 - 180, 0.0))
        return self._recognized(view, _Guess(0, known.language))

    def _laid(self, page: View, lie: Lie) -> View:
        """With its lines running across, and of the right size."""
        view = page.quartered(lie.quarter)
        if abs(lie.lean) > STEADY:
            view = view.straightened(lie.lean)
        view = view.bordered()
        heights = [bottom - top for _, top, _, bottom in self._line_boxes(view)]
        factor = fitting(heights)
        return view.scaled(factor) if factor != 1.0 else view

    def _line_boxes(self, view: View) -> list[_Place]:
        tesseract = self._tesseract(self._languages[0])
        _show(tesseract, view.image)
        layout = tesseract.AnalyseLayout()
        if layout is None:
            return []
        level = tesserocr.RIL.TEXTLINE
        boxes = [one.BoundingBox(level) for one in tesserocr.iterate_level(layout, level)]
        return [box for box in boxes if box is not None]

    def _guesses(self, view: View) -> list[_Guess]:
        """Every way to read a view whose lines run across, the likeliest first."""
        quarters, script = self._osd(view)
        known = [one for one in self._languages if SCRIPT_OF[one] == script]
        rest = [one for one in self._languages if one not in known]
        return [_Guess(quarter, one) for one in [*known, *rest] for quarter in quarters]

    def _osd(self, view: View) -> tuple[tuple[int, ...], str | None]:
        """Which quarters to try, in order, and the script, as Tesseract's own detector says where it is sure."""
        if "osd" not in _available(self._tessdata):
            return (0, 180), None
        tesseract = self._tesseract("osd", tesserocr.PSM.OSD_ONLY)
        _show(tesseract, view.image)
        told = tesseract.DetectOrientationScript()
        if not told:
            return (0, 180), None
        script = _GROUP.get(told["script_name"]) if told["script_conf"] >= SCRIPTED else None
        quarter = int(told["orient_deg"]) % 360
        if told["orient_conf"] < UPRIGHT or script is None:
            return (0, 180), script
        return ((quarter, (quarter + 180) % 360), script)

    def _best_of_samples(self, views: Sequence[View], guesses: Sequence[_Guess], first: _Reading) -> _Reading:
        """The whole page, read in the way that reads some lines of it best. `first` is how it was read already."""
        best: tuple[_Reading, View, _Guess] | None = None
        for view, sample in [(view, self._sample(view)) for view in views]:
            for guess in guesses:
                if best is not None and self._is_settled(best[0], best[2], guess):
                    continue
                known = sample is view is views[0] and guess == guesses[0]
                reading = first if known else self._recognized(sample, guess)
                if best is None or reading.worth > best[0].worth:
                    best = (reading, view, guess)
        assert best is not None  # there is at least one view, and one guess
        reading, view, guess = best
        if reading is first or (view is views[0] and guess == guesses[0]):
            return first
        whole = reading if self._is_whole(reading, view, guess) else self._recognized(view, guess)
        return max(whole, first, key=lambda one: one.worth)

    @staticmethod
    def _is_settled(best: _Reading, so_far: _Guess, guess: _Guess) -> bool:
        """Whether `guess` can't be better than the best so far: only the same letters' other language can."""
        if best.sure:
            return True
        rivals = SCRIPT_OF[guess.language] == SCRIPT_OF[so_far.language] and guess.quarter == so_far.quarter
        return best.confidence >= CLEAR and best.letters >= FEW and not rivals

    @staticmethod
    def _is_whole(reading: _Reading, view: View, guess: _Guess) -> bool:
        width, height = view.image.size
        return reading.view.image.size == ((height, width) if guess.quarter in {90, 270} else (width, height))

    def _sample(self, view: View) -> View:
        """Some lines from the middle of the page."""
        boxes = sorted(self._line_boxes(view), key=lambda box: box[1])
        if len(boxes) <= SAMPLE_LINES * 3 // 2:
            return view
        middle = len(boxes) // 2
        some = boxes[middle - SAMPLE_LINES // 2 : middle + SAMPLE_LINES // 2]
        top, bottom = min(box[1] for box in some), max(box[3] for box in some)
        return View(view.image.crop((0, top, view.image.width, bottom))).bordered()

    def _mended(self, reading: _Reading) -> _Reading:
        """Its doubtful lines in whichever language reads them best: a page may be in two."""
        doubtful = [line for line in reading.lines if line.confidence < LIKELY][:DOUBTED_LINES]
        better: dict[int, _Seen] = {}
        for line in doubtful:
            for language in self._languages:
                if language == reading.language:
                    continue
                again = self._line(reading.view, line, language)
                best = better.get(id(line), line)
                if again is not None and again.confidence > max(LIKELY, best.confidence):
                    better[id(line)] = again
        return replace(reading, lines=tuple(better.get(id(line), line) for line in reading.lines))

    def _line(self, view: View, line: _Seen, language: str) -> _Seen | None:
        left, top, right, bottom = line.box
        room = max(4, (bottom - top) // 6)
        across, down = max(0, left - room), max(0, top - room)
        alone = View(view.image.crop((across, down, right + room, bottom + room))).bordered()
        lines = self._recognized(alone, _Guess(0, language), tesserocr.PSM.SINGLE_BLOCK).lines
        if len(lines) != 1:
            return None
        across, down = across - BORDER, down - BORDER
        words = tuple(
            (text, (a + across, b + down, c + across, d + down), sure)
            for text, (a, b, c, d), sure in lines[0].words
        )
        return replace(lines[0], words=words, box=line.box, starts_paragraph=line.starts_paragraph)

    def _recognized(self, view: View, guess: _Guess, mode: int = tesserocr.PSM.AUTO) -> _Reading:
        turned = view.quartered(guess.quarter)
        tesseract = self._tesseract(guess.language, mode)
        _show(tesseract, turned.image)
        tesseract.Recognize()
        return _Reading(turned, guess.language, tuple(_seen(tesseract.GetTSVText(0), guess.language)))

    def _tesseract(self, language: str, mode: int = tesserocr.PSM.AUTO) -> Any:
        data = LANGUAGES[language].tesseract if language in LANGUAGES else language
        tesseract = _loaded(self._tessdata, data)
        tesseract.SetPageSegMode(mode)
        return tesseract


def _is_dirt(line: _Seen, page: _Reading) -> bool:
    """Whether a line is none: on a page that is sure, a few letters that it doubts are a shadow or a stain."""
    few = line.letters <= FEW // 3
    return line.confidence < (LEGIBLE_FEW if few and page.sure else LEGIBLE_LINE)


def _in_order(image: Image.Image, ways: Sequence[Lie]) -> Sequence[Lie]:
    """On a strip, which may hold one line only, that runs along it."""
    width, height = image.size
    if max(width, height) < STRIP * min(width, height):
        return ways
    return sorted(ways, key=lambda lie: (lie.quarter == 0) != (width > height))


@lru_cache(maxsize=6)
def _loaded(tessdata: str, data: str) -> Any:
    """Tesseract with one language's data, kept for the next page."""
    return tesserocr.PyTessBaseAPI(path=tessdata, lang=data)


@lru_cache(maxsize=4)
def _available(tessdata: str) -> frozenset[str]:
    return frozenset(tesserocr.get_languages(tessdata)[1])


def _show(tesseract: Any, image: Image.Image) -> None:
    """Hand over pixels. They stay the caller's, so they are kept until the next ones are shown."""
    tesseract.SetImageBytes(image.tobytes(), image.width, image.height, 1, image.width)
    tesseract.SetSourceResolution(DPI)


def _seen(table: str, language: str) -> Iterator[_Seen]:
    """The lines of Tesseract's table: its iterator has the letters of right-to-left words in the order of the eye."""
    box: _Place = (0, 0, 0, 0)
    words: list[tuple[str, _Place, float]] = []
    paragraph = begun = True
    for row in table.splitlines():
        level, *numbers, text = row.split("\t", 11)
        left, top, width, height = (int(number) for number in numbers[5:9])
        if level == _WORD and text.strip():
            sure = max(0.0, min(1.0, float(numbers[9]) / 100))
            words.append((text.strip(), (left, top, left + width, top + height), sure))
        elif level == _LINE:
            if words:
                yield _Seen(tuple(words), box, language, paragraph)
                begun = False
            box, words, paragraph = (left, top, left + width, top + height), [], begun
        elif level == _PARAGRAPH:
            begun = True
    if words:
        yield _Seen(tuple(words), box, language, paragraph)
