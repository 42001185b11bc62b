"""Moonshine: English speech, transcribed on this machine, without a key and without a network.

It needs the extra `speech`, which brings the model `tiny`. It hears English in whatever is said.
"""

import importlib
import importlib.util
import threading
from array import array
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from baatcheet.audio.engines.model import EngineFailed, Wish
from baatcheet.audio.pieces import RATE
from baatcheet.audio.transcript import Heard, Segment
from baatcheet.jobs.isolation import Sandbox, SandboxFailed
from baatcheet.jobs.isolation_frames import Refused, Report
from baatcheet.kit.text import storable

NAME = "local/moonshine-tiny"
PACKAGE = "moonshine_voice"
MEMORY = 1_500_000_000  # bytes; measured: 0.4 GB and 0.3 GB more for a piece of five minutes
# A second of speech takes a tenth of a second to a third; four times that on a machine that is busy.
SECONDS_BASE, SECONDS_PER_SECOND = 60.0, 1.5


class Listening(msgspec.Struct, frozen=True):
    """A FLAC file of one channel at 16 kHz."""

    path: str


class Phrase(msgspec.Struct, frozen=True):
    start: float
    end: float
    text: str


class Listened(msgspec.Struct, frozen=True):
    """What was said in it."""

    phrases: list[Phrase]


def is_installed() -> bool:
    """Whether the extra `speech` is there."""
    return importlib.util.find_spec(PACKAGE) is not None


class MoonshineEngine:
    """In a child of `sandbox`, which keeps the model for its next call."""

    name = NAME
    languages: ClassVar[frozenset[str] | None] = frozenset({"en"})
    words = False

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def transcribe(self, piece: Path, seconds: float, wish: Wish) -> Heard:
        limit = SECONDS_BASE + SECONDS_PER_SECOND * seconds
        try:
            listened = await self._sandbox.run(listen, Listening(str(piece)), seconds=limit, memory=MEMORY)
        except Refused as refused:
            raise EngineFailed(f"{NAME}: {refused}", passing=False) from refused
        except SandboxFailed as failure:
            raise EngineFailed(f"{NAME}: {failure}", passing=True) from failure
        segments = [Segment(one.start, one.end, storable(one.text)) for one in listened.phrases]
        return Heard(" ".join(one.text for one in segments), "en", None, segments)


_loading = threading.Lock()
_loaded: Any = None


def listen(order: Listening, report: Report) -> Listened:
    """What is said in a file, phrase by phrase. Runs in a sandbox. Raises Refused where the extra is missing."""
    import av  # noqa: PLC0415 - only the sandbox needs it

    samples: array[float] = array("f")
    with av.open(order.path, format="flac") as source:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        for frame in source.decode(source.streams.audio[0]):
            for ready in resampler.resample(frame):
                samples.frombytes(bytes(ready.planes[0])[: ready.samples * 4])
    heard = _transcriber().transcribe_without_streaming(samples, RATE)
    lines = [(line.start_time, line.start_time + line.duration, line.text.strip()) for line in heard.lines]
    return Listened([Phrase(start, end, text) for start, end, text in lines if text])


def _transcriber() -> Any:
    """The model, loaded once in a process."""
    global _loaded  # noqa: PLW0603 - it takes a third of a second and 0.2 GB
    with _loading:
        if _loaded is None:
            try:
                package = importlib.import_module(PACKAGE)
            except ImportError as error:
                raise Refused(
                    "The local engine is not installed here. An administrator can: pip install 'baatcheet[speech]'."
                ) from error
            path = str(package.get_model_path("tiny-en"))
            _loaded = package.Transcriber(
                path, package.ModelArch.TINY, options={"return_audio_data": "false"}
            )
        return _loaded
