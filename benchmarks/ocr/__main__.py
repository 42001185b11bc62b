"""Reading pictures: `python -m benchmarks.ocr [--json] [--quick]`.

Known texts are drawn in several fonts, spoilt in known ways, and read by Tesseract as a worker does it: in a sandbox,
with nothing said of the language or of which way up a page is. What counts is how many characters are right, how long
a page takes, how long this process's event loop stands still meanwhile, and what is left of its memory after damaged
files by the thousand. docs/benchmarks.md says what each figure means.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from baatcheet.attachments.ocr.availability import Tessdata, find_tessdata
from baatcheet.attachments.ocr.engine import Page
from baatcheet.attachments.ocr.local import TesseractEngine
from baatcheet.jobs.isolation import Sandbox
from benchmarks.ocr import malformed
from benchmarks.ocr.corpus import honest, mutated
from benchmarks.ocr.pages import CONDITIONS, FONTS, TEXTS, Condition, FontMissing, Sheet, sheets
from benchmarks.ocr.scoring import right
from benchmarks.report import Report, options, progress

ENGLISH_TARGET = 98.0  # per cent of characters
STALL_TARGET = 50.0  # ms
GROWTH_TARGET = 20.0  # MB
QUICK = ("clean", "small_12", "noise_heavy", "turned_180", "skewed_-4", "faint", "photo")
OTHERS = ("clean", "small_14", "noise_gauss", "turned_90", "skewed_2", "photo")


@dataclass
class Measured:
    """What one language's pages came to."""

    seconds: list[float] = field(default_factory=list)
    told: list[bool] = field(default_factory=list)  # whether the language was


class Beat:
    """How long the event loop stood still, in seconds, at every thousandth of one."""

    def __init__(self) -> None:
        self.stalls: list[float] = []

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _beat(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.stalls.append(time.perf_counter() - before - 0.001)

    def at(self, share: float) -> float:
        """Milliseconds that this share of the looks did not exceed."""
        ordered = sorted(self.stalls)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Ocr:
    """One run."""

    def __init__(self, report: Report, *, quick: bool, data: Tessdata) -> None:
        self._report = report
        self._quick = quick
        self._data = data
        self._beat = Beat()

    async def run(self, folder: Path) -> None:
        async with Sandbox(2) as sandbox:
            engine = TesseractEngine(sandbox, lambda: self._data)
            self._path = folder / "page.png"
            await self._language(engine, folder, "eng", "en", self._conditions("eng"))
            for language, code in (("urd", "ur"), ("urd_nastaliq", "ur"), ("ara", "ar"), ("hin", "hi")):
                await self._language(engine, folder, language, code, self._conditions(language))
        self._report.add("stall.p99", self._beat.at(0.99), "ms", better="lower", target=STALL_TARGET)
        self._report.add("stall.p999", self._beat.at(0.999), "ms", better="lower", target=STALL_TARGET)
        self._report.add("stall.max", self._beat.at(1.0), "ms", better="lower")
        await self._malformed(folder)

    def _conditions(self, language: str) -> Sequence[Condition]:
        every = tuple(one.name for one in CONDITIONS)
        english = language == "eng"
        names: Sequence[str] = (
            (QUICK if english else QUICK[:1]) if self._quick else (every if english else OTHERS)
        )
        return [one for one in CONDITIONS if one.name in names]

    async def _language(
        self, engine: TesseractEngine, folder: Path, language: str, code: str, conditions: Sequence[Condition]
    ) -> None:
        progress(f"reading {language}")
        measured = Measured()
        scores: dict[str, float] = {}
        try:
            for condition in conditions:
                scores[condition.name] = await self._condition(
                    engine, folder, language, code, condition, measured
                )
        except FontMissing as missing:
            self._report.note(f"{language} was not measured: the font {missing} is not installed.")
            return
        target = ENGLISH_TARGET if language == "eng" else None
        for name, score in scores.items():
            self._report.add(
                f"right.{language}.{name}", score, "% characters", better="higher", target=target
            )
        worst = min(scores.values())
        self._report.add(f"right.{language}.worst", worst, "% characters", better="higher", target=target)
        told = 100 * sum(measured.told) / len(measured.told)
        self._report.add(f"language_told.{language}", told, "% pages", better="higher", target=100)
        middle = statistics.median(measured.seconds)
        self._report.add(f"seconds_a_page.{language}", middle, "s", better="lower")

    async def _condition(
        self,
        engine: TesseractEngine,
        folder: Path,
        language: str,
        code: str,
        condition: Condition,
        measured: Measured,
    ) -> float:
        """The mean share of characters that are right, in per cent."""
        rights = []
        for number, sheet in enumerate(self._fonts(language)):
            text = TEXTS[language[:3]][number % len(TEXTS[language[:3]])]
            condition.page(text, sheet).save(self._path, compress_level=1)
            async with self._beat.watching():
                began = time.perf_counter()
                read = await engine.read(Page(str(self._path), "png"), (), folder)
                measured.seconds.append(time.perf_counter() - began)
            measured.told.append(read.language == code)
            rights.append(100 * right(text, read.text))
        return statistics.mean(rights)

    def _fonts(self, language: str) -> Iterator[Sheet]:
        most = 2 if self._quick else len(FONTS[language])
        return (sheet for sheet, _ in zip(sheets(language), range(most), strict=False))

    async def _malformed(self, folder: Path) -> None:
        count = 60 if self._quick else 1_000
        progress(f"{count} damaged files")
        began = time.perf_counter()
        outcome = await malformed.run(mutated(honest(), count, 1), folder / "malformed")
        self._report.add("malformed.unexplained", len(outcome.unexplained), "files", better="lower", target=0)
        lost = sum(outcome.ends[kind] for kind in ("crash", "time", "memory", "error"))
        self._report.add("malformed.children_lost", lost, f"of {count}", better="lower")
        self._report.add("malformed.growth", outcome.growth, "MB", better="lower", target=GROWTH_TARGET)
        self._report.add("malformed.rate", count / (time.perf_counter() - began), "files/s", better="higher")


def main() -> None:
    asked = options("ocr", "How much of a picture's text is read right, and what it costs.")
    report = Report("ocr")
    data = find_tessdata(None, Path("data"))
    if data is None:
        report.note("There is no language data of Tesseract's: run scripts/ocr-data.")
    else:
        with TemporaryDirectory() as name, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Ocr(report, quick=asked.quick, data=data).run(Path(name)))
    report.show(asked)


if __name__ == "__main__":
    main()
