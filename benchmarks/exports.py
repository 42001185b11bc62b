"""Exports: `python -m benchmarks.exports [--json] [--quick]`.

How long a conversation of mixed English, Urdu and code takes to become a PDF, Markdown or text, and how much memory its
process takes at most, for several lengths. Each runs in a process of its own, as in a worker, which is counted whole:
starting Python, importing, looking through the machine's fonts.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from baatcheet.exports.document import Document, Format, Rendering, Said, Talk, line
from benchmarks.report import Report, options, progress
from benchmarks.texts import sentences

SIZES = (500, 1_000, 2_500, 5_000, 10_000, 50_000)
QUICK = (500, 1_000, 2_500)
STANDARD = 5_000
SECONDS = 20.0
MEGABYTES = 800.0
LANGUAGES = ("python", "sql", "javascript", "bash")
START = datetime(2026, 5, 12, 9, 0, tzinfo=UTC)


class Speaker:
    """Says what the messages of a document say."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._code = sentences("code", 200_000, self._chance)

    def message(self, number: int) -> str:
        """Message `number`: questions and answers, English and Urdu, with code, lists and tables."""
        return _message(number, self._chance, self._code)


def _message(number: int, chance: random.Random, source: str) -> str:
    kind = "urdu" if number // 2 % 2 else "english"
    said = sentences(kind, 260 if number % 2 == 0 else 420, chance)
    match number % 10:
        case 1 | 5:
            at = chance.randrange(len(source) - 420)
            code = source[at : at + 420]
            return f"{said}\n\n```{chance.choice(LANGUAGES)}\n{code}\n```\n\n{sentences(kind, 160, chance)}"
        case 3:
            items = "\n".join(f"- {sentences(kind, 70, chance)}" for _ in range(4))
            return f"### {sentences(kind, 40, chance)}\n\n{said}\n\n{items}"
        case 7:
            rows = "\n".join(
                f"| {sentences('english', 30, chance)} | {sentences('urdu', 30, chance)} | {chance.random():.3f} |"
                for _ in range(4)
            ).replace("\n\n", "\n")
            return f"{said}\n\n| English | اردو | value |\n|---|---|--:|\n{rows}"
        case 9:
            return f"**{sentences(kind, 60, chance)}** `{chance.getrandbits(32):x}` {said} https://example.com/{number}"
        case _:
            return said


def write_document(path: Path, messages: int) -> int:
    """A document of that many messages at `path`; the characters in it."""
    speaker = Speaker(messages)
    characters = 0
    with path.open("wb") as file:
        file.write(line(Document(f"{messages:,} messages", START, 1, messages, owner="somebody@example.com")))
        file.write(line(Talk("1", f"{messages:,} messages", START, messages=messages, model="a-model")))
        for number in range(messages):
            content = speaker.message(number)
            characters += len(content)
            at = START + timedelta(minutes=7 * number)
            role: Any = "assistant" if number % 2 else "user"
            file.write(line(Said(str(number), role, content, at, model="a-model" if number % 2 else "")))
    return characters


class Taken(msgspec.Struct):
    """What one rendering took."""

    seconds: float
    processor: float  # seconds of it, of all threads together
    megabytes: float
    pages: int
    size: int


def measure(source: Path, format_: Format, folder: Path) -> Taken:
    """Render `source` in a process of its own."""
    target = folder / f"{source.stem}.{format_}"
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.exports", "--render", str(source), str(target), format_],
        check=True,
        stdout=subprocess.PIPE,
    )
    seconds = time.perf_counter() - began
    taken = msgspec.json.decode(done.stdout, type=Taken)
    taken.seconds = seconds
    target.unlink()
    return taken


def render_here(source: str, target: str, format_: Format) -> None:
    """The child's part."""
    from baatcheet.exports.rendering import render  # noqa: PLC0415 - what a child imports is measured, and only there

    rendered = render(Rendering(source, target, format_), lambda _percent, _phrase: None)
    used = resource.getrusage(resource.RUSAGE_SELF)
    processor = used.ru_utime + used.ru_stime
    print(
        msgspec.json.encode(
            Taken(0.0, processor, highest_resident(), rendered.pages, rendered.bytes)
        ).decode()
    )


def highest_resident() -> float:
    """The most megabytes of memory that this program held at once.

    Not getrusage's ru_maxrss: it keeps, over execve, what the process was before, a fork of a parent of any size.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def run(report: Report, sizes: Sequence[int]) -> None:
    taken: dict[int, Taken] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for messages in sizes:
            progress(f"PDF of {messages:,} messages")
            source = folder / f"{messages}.jsonl"
            characters = write_document(source, messages)
            one = taken[messages] = measure(source, "pdf", folder)
            standard = messages == STANDARD
            report.add(
                f"pdf.{messages}.time", one.seconds, "s", better="lower", target=SECONDS if standard else None
            )
            report.add(f"pdf.{messages}.processor", one.processor, "s", better="lower")
            report.add(f"pdf.{messages}.memory", one.megabytes, "MB", better="lower", target=MEGABYTES)
            report.note(
                f"{messages:,} messages, {characters / 1e6:.1f} million characters: {one.pages:,} pages, "
                f"{one.size / 1e6:.1f} MB."
            )
        first, last = taken[sizes[0]], taken[sizes[-1]]
        # How much more the longest takes for each of its messages than the shortest, which has to pay for the start as
        # well. By the processor's time, which other programs on the machine change least.
        each = (last.processor / sizes[-1]) / (first.processor / sizes[0])
        report.add("pdf.processor_per_message_ratio", each, "x", better="lower", target=1.2)
        report.add("pdf.memory_ratio", last.megabytes / first.megabytes, "x", better="lower", target=2.5)
        formats: tuple[Format, ...] = ("md", "txt")
        source = folder / f"{max(taken)}.jsonl"
        for format_ in formats:
            progress(f"{format_} of {source.stem} messages")
            one = measure(source, format_, folder)
            report.add(f"{format_}.{source.stem}.time", one.seconds, "s", better="lower")
            report.add(f"{format_}.{source.stem}.memory", one.megabytes, "MB", better="lower", target=200.0)


def main() -> None:
    if sys.argv[1:2] == ["--render"]:
        _, _, source, target, format_ = sys.argv
        render_here(source, target, msgspec.convert(format_, Format))
        return
    chosen = options("exports", __doc__ or "")
    report = Report("exports")
    run(report, QUICK if chosen.quick else SIZES)
    report.show(chosen)


if __name__ == "__main__":
    main()
