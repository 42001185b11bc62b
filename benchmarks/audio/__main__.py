"""How well and how fast recordings are transcribed on this machine."""

import asyncio
import importlib
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from baatcheet.audio.engines import Engines
from baatcheet.audio.engines.model import Wish
from baatcheet.audio.engines.moonshine import PACKAGE, MoonshineEngine, is_installed
from baatcheet.audio.transcribing import Transcriber
from baatcheet.jobs.isolation import Sandbox
from baatcheet.platform.settings import AudioSettings
from benchmarks.audio.speech import (
    DICKENS,
    ESPEAK,
    SENTENCES,
    VOICES,
    make_long,
    speak,
    words_of,
    wrong_words,
)
from benchmarks.audio.work import Word, echo
from benchmarks.report import Report, options, progress


@dataclass
class Heard:
    """What became of one recording."""

    text: str
    pieces: int
    audio_seconds: float
    decoding: float  # seconds
    hearing: float

    def word_error_rate(self, said: str) -> float:
        words = words_of(said)
        return 100 * wrong_words(words, words_of(self.text)) / len(words)


class Bench:
    """The local engine, in a sandbox."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self._sandbox = sandbox
        self._folder = folder
        self._runs = 0

    async def hear(self, path: Path, *, piece_seconds: float = 300.0) -> Heard:
        engine = MoonshineEngine(self._sandbox)
        transcriber = Transcriber(
            self._sandbox, Engines(lambda: [engine]), AudioSettings(piece_seconds=piece_seconds)
        )
        self._runs += 1
        pieces = self._folder / f"pieces-{self._runs}"
        pieces.mkdir()
        begun = time.perf_counter()
        decoded = await transcriber.decode(path, pieces)
        ready = time.perf_counter()
        transcript = (await transcriber.hear(decoded, [engine], Wish(language="en"))).transcript
        ended = time.perf_counter()
        shutil.rmtree(pieces)
        return Heard(transcript.text, len(decoded.pieces), decoded.seconds, ready - begun, ended - ready)

    def resident(self) -> float:
        """MB that the child holds."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._sandbox.pids)
        return pages * 4096 / 1e6


async def accuracy(report: Report, bench: Bench, folder: Path, *, quick: bool) -> None:
    """How many words in a hundred are wrong."""
    said = " ".join(SENTENCES[:8] if quick else SENTENCES)
    rates = []
    for voice in VOICES[:2] if quick else VOICES:
        progress(f"listening to {voice}")
        heard = await bench.hear(speak(folder / f"{voice}.wav", said, voice))
        rate = heard.word_error_rate(said)
        rates.append(rate)
        report.add(f"wer.synthetic.{voice.replace('-', '_')}", rate, "%", better="lower")
    report.add("wer.synthetic.mean", sum(rates) / len(rates), "%", better="lower")
    pieces = await bench.hear(folder / f"{VOICES[0]}.wav", piece_seconds=10)
    report.add("wer.synthetic.in_pieces", pieces.word_error_rate(said), "%", better="lower")
    report.note(
        f"in_pieces: the first voice again, cut in {pieces.pieces} pieces of 10 s at most and joined; compare it "
        f"with the {rates[0]:.1f} % of the uncut one."
    )
    package = importlib.import_module(PACKAGE)
    progress("listening to a person")
    person = await bench.hear(Path(package.get_assets_path()) / "two_cities.wav")
    report.add("wer.person", person.word_error_rate(DICKENS), "%", better="lower")
    report.add("speed.hearing", person.audio_seconds / person.hearing, "x real time", better="higher")
    report.add("memory.hearing", bench.resident(), "MB", better="lower")


async def decoding(report: Report, bench: Bench, folder: Path, *, quick: bool) -> None:
    """What it takes to decode a long recording and to cut it."""
    minutes = 10 if quick else 60
    progress(f"decoding {minutes} minutes")
    path = folder / "long.mp3"
    await asyncio.to_thread(make_long, path, minutes * 60)
    async with Sandbox(processes=1) as sandbox:
        transcriber = Transcriber(sandbox, Engines(list), AudioSettings())
        pieces = folder / "pieces"
        pieces.mkdir()
        begun = time.perf_counter()
        decoded = await transcriber.decode(path, pieces)
        taken = time.perf_counter() - begun
        report.add("speed.decoding", decoded.seconds / taken, "x real time", better="higher")
        report.add("memory.decoding", Bench(sandbox, folder).resident(), "MB", better="lower", target=200)
        sent = sum(one.stat().st_size for one in pieces.iterdir()) / decoded.seconds * 60 / 1e6
        report.add("upload.per_minute", sent, "MB", better="lower")


async def sandbox_calls(report: Report, *, quick: bool) -> None:
    """What a call of a sandbox costs beside its work."""
    progress("calling a sandbox")
    for name, calls, count in (("warm", 10**9, 200 if quick else 1000), ("fresh", 1, 10 if quick else 50)):
        async with Sandbox(processes=1, calls=calls) as sandbox:
            await sandbox.run(echo, Word("a"))
            taken = []
            for _ in range(count):
                begun = time.perf_counter()
                await sandbox.run(echo, Word("a"))
                taken.append((time.perf_counter() - begun) * 1000)
        taken.sort()
        report.add(f"sandbox.{name}.p50", taken[len(taken) // 2], "ms", better="lower")
        report.add(f"sandbox.{name}.p99", taken[int(len(taken) * 0.99)], "ms", better="lower")


async def run(*, quick: bool) -> Report:
    report = Report("audio")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Sandbox(processes=1) as sandbox:
            bench = Bench(sandbox, folder)
            if ESPEAK is None or not is_installed():
                report.add("wer.synthetic.mean", None, "%", better="lower")
                report.note("Nothing was heard: that takes espeak-ng and the extra `speech`.")
            else:
                await accuracy(report, bench, folder, quick=quick)
            await decoding(report, bench, folder, quick=quick)
        await sandbox_calls(report, quick=quick)
    return report


def main() -> None:
    asked = options("audio", "how well and how fast recordings are transcribed on this machine")
    asyncio.run(run(quick=asked.quick)).show(asked)


if __name__ == "__main__":
    main()
