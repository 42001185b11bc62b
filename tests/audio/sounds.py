"""Recordings for the tests: made with PyAV where any sound will do, spoken by espeak-ng where words are needed."""

import math
import random
import shutil
import subprocess
from array import array
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

ESPEAK = shutil.which("espeak-ng")
BLOCK = 4096

Wave = Callable[[int, int], "array[int]"]
"""The samples of one second of one channel: of which second, at what rate."""


def silence(second: int, rate: int) -> "array[int]":
    return array("h", bytes(2 * rate))


@cache
def _tone(rate: int) -> "array[int]":
    return array("h", (round(9_000 * math.sin(2 * math.pi * 440 * at / rate)) for at in range(rate)))


def tone(second: int, rate: int) -> "array[int]":
    return _tone(rate)


def talk(second: int, rate: int) -> "array[int]":
    """Two seconds of sound, one of silence, over and over."""
    return tone(second, rate) if second % 3 < 2 else silence(second, rate)


def noise(second: int, rate: int) -> "array[int]":
    return array("h", random.Random(second).randbytes(2 * rate))


def chatter(second: int, rate: int) -> "array[int]":
    """As `talk`, and no second is like another."""
    return noise(second, rate) if second % 3 < 2 else silence(second, rate)


def make(
    path: Path,
    seconds: float,
    wave: Wave = tone,
    *,
    codec: str | None = None,
    rate: int = 16_000,
    layout: str = "mono",
    container: str | None = None,
) -> Path:
    """A recording at `path`, whose ending says how it is kept."""
    chosen = (
        codec
        or {
            ".wav": "pcm_s16le",
            ".mp3": "libmp3lame",
            ".m4a": "aac",
            ".mp4": "aac",
            ".ogg": "libopus",
            ".opus": "libopus",
            ".flac": "flac",
            ".webm": "libopus",
            ".aac": "aac",
            ".mka": "pcm_s16le",
        }[path.suffix]
    )
    with av.open(str(path), "w", format=container) as target:
        stream = cast("AudioStream", target.add_stream(chosen, rate=rate, layout=layout))
        context = stream.codec_context
        resampler = av.AudioResampler(
            format=context.format, layout=layout, rate=rate, frame_size=stream.frame_size or BLOCK
        )
        for frame in _frames(seconds, wave, rate, context.layout.nb_channels, layout):
            for ready in resampler.resample(frame):
                target.mux(stream.encode(ready))
        for ready in resampler.resample(None):
            target.mux(stream.encode(ready))
        target.mux(stream.encode(None))
    return path


def _frames(seconds: float, wave: Wave, rate: int, channels: int, layout: str) -> Iterator[AudioFrame]:
    left = round(seconds * rate)
    for second in range(math.ceil(seconds)):
        block = wave(second, rate)[: min(rate, left)]
        left -= len(block)
        if channels > 1:
            block = array("h", (value for value in block for _ in range(channels)))
        yield frame_of(block.tobytes(), len(block) // channels, layout, rate, second * rate)


def frame_of(samples: bytes, count: int, layout: str, rate: int, first: int) -> AudioFrame:
    frame = AudioFrame(format="s16", layout=layout, samples=count)
    frame.planes[0].update(samples)
    frame.sample_rate = rate
    frame.pts = first
    frame.time_base = Fraction(1, rate)
    return frame


def speak(path: Path, words: str, *, voice: str = "en-us", speed: int = 140) -> Path:
    """`words`, spoken into a WAV file."""
    assert ESPEAK is not None
    subprocess.run([ESPEAK, "-v", voice, "-s", str(speed), "-w", str(path), words], check=True, timeout=60)
    return path


def samples_of(path: Path) -> "array[int]":
    """What a file of one channel at 16 kHz has in it."""
    found: array[int] = array("h")
    with av.open(str(path)) as source:
        for frame in source.decode(source.streams.audio[0]):
            found.frombytes(bytes(frame.planes[0])[: frame.samples * 2])
    return found


def make_silence(path: Path, seconds: int) -> Path:
    """Silence that takes hardly any room."""
    return make(path, seconds, silence)
