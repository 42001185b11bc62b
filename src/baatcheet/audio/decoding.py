"""From whatever a recording came as to pieces that every engine takes: 16 kHz, one channel, FLAC.

Runs in a sandbox. Nothing but one piece is in memory, however long the recording is.
"""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from baatcheet.audio.pieces import RATE, CutPiece, Decoded, Decoding, length
from baatcheet.audio.splitting import LEVELS_PER_SECOND, Bounds, cut, is_audible
from baatcheet.jobs.isolation_frames import Refused, Report

SHORTEST = RATE  # samples of a piece as it is sent: engines refuse less than a tenth of a second
_BLOCK = RATE // LEVELS_PER_SECOND  # samples of a level
_STRIDE = 4  # every so many samples make a level
_BYTES = 2  # of a sample
_MOST_ERRORS = 1_000  # packets that can't be decoded, one after another: nothing more will come

# Recordings, and videos with sound. What reads lists of other files (HLS, DASH, concat …) or opens addresses is not
# among them: a file must not be a way to other files.
_FORMATS = "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,ogg,wav,w64"
# What their headers say of their length is mostly so; of the others it is an estimate.
_EXACT = frozenset({"aiff", "caf", "flac", "matroska", "mov", "mp3", "ogg", "wav"})
# What PyAV raises of a file that is not what it should be; an OSError when it seeks to where there is nothing.
_BROKEN = (av.error.FFmpegError, OSError, ValueError, OverflowError)
_UNREADABLE = (
    "The file can't be read as a recording. It must be a whole MP3, WAV, M4A, MP4, OGG, Opus, FLAC, WebM, AAC, AMR, "
    "AIFF or WMA file."
)


def decode(order: Decoding, report: Report) -> Decoded:
    """The recording's pieces. Raises Refused, in plain words, for what is none or can't be read."""
    with Path(order.path).open("rb") as file:
        size = max(1, Path(order.path).stat().st_size)
        cutter = _Cutter(order)
        source = _open(file)
        try:
            stream = _sound_of(source)
            broken = 0
            for samples in _samples(source, stream):
                if samples is None:
                    broken += 1
                    continue
                cutter.add(samples)
                if cutter.seconds > order.longest:
                    raise Refused(order.too_long)
                report(100 * file.tell() / size, f"Read {length(cutter.seconds)}")
            stated = _stated_seconds(source)
        finally:
            source.close()
        pieces = cutter.end()
    if not pieces:
        raise Refused(
            "The file has a sound track, but nothing of it can be read: it is damaged or cut short."
        )
    if not any(piece.audible for piece in pieces):
        raise Refused(
            f"Nothing can be heard in the recording: all of its {length(cutter.seconds)} are silent."
        )
    return Decoded(pieces, cutter.seconds, _warning(cutter.seconds, stated, broken))


def _open(file: IO[bytes]) -> InputContainer:
    try:
        # A file object and not its path: FFmpeg takes some paths for addresses.
        return av.open(file, "r", container_options={"format_whitelist": _FORMATS}, metadata_errors="replace")
    except MemoryError:
        raise
    except _BROKEN as error:
        raise Refused(_UNREADABLE) from error


def _sound_of(source: InputContainer) -> AudioStream:
    if not source.streams.audio:
        what = "only pictures" if source.streams.video else "nothing that sounds"
        raise Refused(f"The file has no sound track: there is {what} in it.")
    stream = source.streams.audio[0]
    if getattr(stream, "codec_context", None) is None:
        raise Refused("The file's sound is encrypted, or of a kind that can't be decoded here.")
    stream.codec_context.thread_count = 1
    return stream


def _samples(source: InputContainer, stream: AudioStream) -> Iterator[bytes | None]:
    """Samples of 16 bits as they are decoded; None for a packet that can't be."""
    mixer = _Mixer()
    errors = 0
    try:
        for packet in source.demux(stream):
            try:
                for frame in packet.decode():
                    errors = 0
                    yield from mixer.mix(frame)
            except MemoryError:  # PyAV's own is one of those below, too
                raise
            except _BROKEN:
                errors += 1
                yield None
                if errors > _MOST_ERRORS:
                    break
    except MemoryError:
        raise
    except _BROKEN:  # the file itself ends where it should not
        yield None
    yield from mixer.rest()


class _Mixer:
    """Makes one channel at `RATE` of frames, whose own form may change on the way."""

    def __init__(self) -> None:
        self._form: tuple[str, str, int] | None = None
        self._resampler: AudioResampler | None = None

    def mix(self, frame: AudioFrame) -> Iterator[bytes]:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:
            yield from self.rest()
            self._form = form
            self._resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
        assert self._resampler is not None
        frame.pts = None  # time is counted in samples: a stamp may claim any
        yield from self._resampled(frame)

    def rest(self) -> Iterator[bytes]:
        """What is still inside."""
        if self._resampler is not None:
            with contextlib.suppress(*_BROKEN):
                yield from self._resampled(None)
        self._resampler = None
        self._form = None

    def _resampled(self, frame: AudioFrame | None) -> Iterator[bytes]:
        assert self._resampler is not None
        for made in self._resampler.resample(frame):
            yield bytes(made.planes[0])[: made.samples * _BYTES]


class _Cutter:
    """Cuts what comes, and writes each piece when its end is known."""

    def __init__(self, order: Decoding) -> None:
        self._folder = Path(order.folder)
        self._bounds = Bounds(max(2, round(order.piece_seconds * LEVELS_PER_SECOND)))
        self._samples = bytearray()
        self._levels: list[int] = []
        self._measured = 0  # samples of which there are levels
        self._first = 0  # sample of the recording with which `_samples` begin
        self._pieces: list[CutPiece] = []

    @property
    def seconds(self) -> float:
        return (self._first + len(self._samples) // _BYTES) / RATE

    def add(self, samples: bytes) -> None:
        self._samples += samples
        self._measure()
        while len(self._levels) > self._bounds.longest:
            self._write(cut(self._levels, self._bounds))

    def end(self) -> list[CutPiece]:
        """All pieces."""
        if self._samples:
            self._write(len(self._levels))
        return self._pieces

    def _measure(self) -> None:
        with memoryview(self._samples) as raw, raw.cast("h") as values:
            for at in range(self._measured, len(values) - _BLOCK + 1, _BLOCK):
                block = values[at : at + _BLOCK : _STRIDE].tolist()
                self._levels.append(sum(map(abs, block)) * _STRIDE // _BLOCK)
                self._measured = at + _BLOCK

    def _write(self, levels: int) -> None:
        """Cut off the first `levels`; when these are all, with the samples that make no whole level."""
        count = levels * _BLOCK if levels < len(self._levels) else len(self._samples) // _BYTES
        taken = bytes(self._samples[: count * _BYTES])
        path = self._folder / f"piece-{len(self._pieces):05}.flac"
        _write_flac(path, taken)
        audible = is_audible(self._levels[:levels])
        self._pieces.append(CutPiece(str(path), self._first, self._first + count, audible))
        del self._samples[: count * _BYTES]
        del self._levels[:levels]
        self._measured -= min(self._measured, count)
        self._first += count


def _write_flac(path: Path, samples: bytes) -> None:
    samples += bytes(max(0, SHORTEST * _BYTES - len(samples)))
    with av.open(str(path), "w", format="flac") as target:
        stream = target.add_stream("flac", rate=RATE, layout="mono", format="s16")
        size = RATE * _BYTES
        for at in range(0, len(samples), size):
            part = samples[at : at + size]
            frame = AudioFrame(format="s16", layout="mono", samples=len(part) // _BYTES)
            frame.sample_rate = RATE
            frame.pts = at // _BYTES
            frame.time_base = Fraction(1, RATE)
            frame.planes[0].update(part)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def _stated_seconds(source: InputContainer) -> float | None:
    """How long the file says that it is."""
    if source.duration is None or not _EXACT & set(source.format.name.split(",")):
        return None
    return source.duration / av.time_base


def _warning(seconds: float, stated: float | None, broken: int) -> str | None:
    if stated is not None and stated > seconds * 1.1 + 2:
        return (
            f"The file says that it is {length(stated)} long, but only {length(seconds)} could be read: "
            "it may be damaged or cut short."
        )
    if broken:
        return "Parts of the file are damaged and could not be read."
    return None
