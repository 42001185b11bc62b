"""A recording cut into pieces: what is asked of the sandbox, and what comes back."""

from typing import Final

import msgspec

from baatcheet.jobs.isolation_frames import Report

RATE: Final = 16_000  # samples a second


class Decoding(msgspec.Struct, frozen=True):
    """What to decode, and the folder that the pieces are written into. Times are seconds.

    `too_long`: what the owner of one that is longer than `longest` is told.
    """

    path: str
    folder: str
    piece_seconds: float
    longest: float
    too_long: str


class CutPiece(msgspec.Struct, frozen=True):
    """A piece in a file of its own: samples `first` up to but not including `last` of the recording."""

    path: str
    first: int
    last: int
    audible: bool

    @property
    def start(self) -> float:
        return self.first / RATE

    @property
    def end(self) -> float:
        return self.last / RATE


class Decoded(msgspec.Struct, frozen=True):
    """A recording in pieces that follow each other without a gap. `warning`: what could not be read of it."""

    pieces: list[CutPiece]
    seconds: float
    warning: str | None = None


def decode(order: Decoding, report: Report) -> Decoded:
    """The recording's pieces. Raises Refused, in plain words, for what is none or can't be read."""
    # Here: only the sandbox needs the libraries that decode.
    from baatcheet.audio import decoding  # noqa: PLC0415

    return decoding.decode(order, report)


def length(seconds: float) -> str:
    """A time for people."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{seconds:.1f} s"
