"""From a file to its transcript: decode it into pieces, have each heard, join what was heard."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from baatcheet.audio.engines import Engines
from baatcheet.audio.engines.model import Engine, Wish, first_to_hear
from baatcheet.audio.languages import code_of
from baatcheet.audio.pieces import CutPiece, Decoded, Decoding, decode, length
from baatcheet.audio.transcript import NOTHING, Heard, Part, Transcript, join
from baatcheet.jobs.isolation import OnProgress, Sandbox
from baatcheet.platform.settings import AudioSettings

DECODING_SECONDS = 900.0
DECODING_MEMORY = 600_000_000  # bytes
TAIL = 200  # characters of what was said before, that the next piece is prompted with

Place = tuple[int, int]
"""The first sample of a piece, and the one after its last."""


@dataclass(frozen=True)
class Kept:
    """What has been heard of a piece, by an earlier attempt."""

    heard: Heard
    engine: str


Keep = Callable[[CutPiece, Kept], Awaitable[None]]
OnPiece = Callable[[int, int], Awaitable[None]]


async def _nowhere(piece: CutPiece, kept: Kept) -> None:
    """Nothing is kept."""


async def _unfollowed(number: int, count: int) -> None:
    """Nobody follows."""


@dataclass(frozen=True)
class Limit:
    """How many seconds a recording may have, and what the owner of a longer one is told.

    `decoding`: the seconds that decoding may take.
    """

    seconds: float
    words: str
    decoding: float = DECODING_SECONDS


@dataclass(frozen=True)
class Transcribed:
    """A transcript. `warning`: what its reader should know of it."""

    transcript: Transcript
    warning: str | None


class Transcriber:
    """Whoever transcribes, and how recordings get to them."""

    def __init__(self, sandbox: Sandbox, engines: Engines, settings: AudioSettings) -> None:
        self.engines = engines
        self._sandbox = sandbox
        self._settings = settings
        longest = settings.max_seconds
        self._limit = Limit(
            longest, f"The recording is longer than {length(longest)}, which is the most that is taken."
        )

    async def decode(
        self, path: Path, folder: Path, limit: Limit | None = None, on_progress: OnProgress | None = None
    ) -> Decoded:
        """The recording at `path` in pieces, which are written into `folder`; `limit` is as configured unless given.

        Raises Refused, in plain words, and SandboxFailed.
        """
        limit = limit or self._limit
        order = Decoding(str(path), str(folder), self._settings.piece_seconds, limit.seconds, limit.words)
        return await self._sandbox.run(
            decode, order, seconds=limit.decoding, memory=DECODING_MEMORY, on_progress=on_progress
        )

    async def hear(
        self,
        decoded: Decoded,
        engines: Sequence[Engine],
        wish: Wish,
        *,
        kept: Mapping[Place, Kept] | None = None,
        keep: Keep = _nowhere,
        on_piece: OnPiece = _unfollowed,
    ) -> Transcribed:
        """What is said in `decoded`. Pieces in `kept` are not heard again; those that are go to `keep` at once.

        Raises EngineFailed when nobody hears a piece.
        """
        known = kept or {}
        spoken = code_of(wish.language)
        tail = ""
        parts: list[Part] = []
        for number, piece in enumerate(decoded.pieces, 1):
            await on_piece(number, len(decoded.pieces))
            one = known.get((piece.first, piece.last))
            if one is None and piece.audible:
                prompted = replace(wish, prompt=_prompt(wish.prompt, tail))
                answered = await first_to_hear(engines, piece, prompted, spoken=spoken)
                one = Kept(answered.heard, answered.engine.name)
                await keep(piece, one)
            heard = one.heard if one is not None else NOTHING
            parts.append(Part(piece.start, piece.end, heard, one.engine if one is not None else None))
            spoken = spoken or heard.language
            tail = heard.text[-TAIL:]
        transcript = join(parts)
        return Transcribed(transcript, _warning(decoded, engines, wish, transcript))


def _prompt(asked: str | None, tail: str) -> str | None:
    """Engines spell names as in their prompt, and go on in its style."""
    return " ".join(one for one in (asked, tail) if one) or None


def _warning(decoded: Decoded, engines: Sequence[Engine], wish: Wish, transcript: Transcript) -> str | None:
    told = [decoded.warning] if decoded.warning else []
    used = set((transcript.engine or "").split(", "))
    if wish.language is None:
        told += [
            f"{one.name} takes all speech for English: of anything else it makes nonsense."
            for one in engines
            if one.languages is not None and one.name in used
        ]
    if not transcript.text:
        told.append("No speech was found in it.")
    return " ".join(told) or None
