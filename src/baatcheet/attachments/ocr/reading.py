"""Having a page read: by the engines in their order, until one has read it and does not doubt."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from baatcheet.attachments.ocr.engine import Engine, EngineFailed, Page, PageText
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

DOUBT: Final = 0.75  # a reading with less confidence, or without a letter, is compared with the next engine's


@dataclass(frozen=True)
class Failure:
    """An engine that did not read a page (from 1; None: it was not asked at all), and why, in plain words."""

    engine: str
    reason: str
    page: int | None = None


class NobodyRead(Exception):
    """No engine could read the page. `str(error)` says of each why; `passing`: one of them may later."""

    def __init__(self, failures: Sequence[Failure], *, passing: bool) -> None:
        super().__init__(
            " ".join(f"{one.engine}: {one.reason}" for one in failures)
            or "No engine that reads pictures is configured (BAATCHEET_OCR_ENGINES)."
        )
        self.passing = passing


@dataclass
class Reading:
    """The engines for one document. One that can't read one page for a reason that holds for all is not asked again."""

    engines: Sequence[Engine]
    languages: tuple[str, ...] = ()
    failures: list[Failure] = field(default_factory=list)
    _out: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for engine in self.engines:
            if (reason := engine.unavailable()) is not None:
                self.failures.append(Failure(engine.name, reason))
                self._out.add(engine.name)

    @property
    def unavailable(self) -> bool:
        """Whether there is nobody to ask."""
        return all(engine.name in self._out for engine in self.engines)

    async def read(self, page: Page, scratch: Path) -> PageText:
        """The best that the engines read. Raises NobodyRead, and Refused when the page itself is unreadable."""
        best: PageText | None = None
        passing = spent = False
        for engine in self.engines:
            if engine.name in self._out:
                continue
            try:
                read = await engine.read(page, self.languages, scratch)
            except EngineFailed as error:
                log.warning("ocr.engine_failed", engine=engine.name, page=page.number + 1, reason=str(error))
                self.failures.append(Failure(engine.name, str(error), page.number + 1))
                passing, spent = passing or error.passing, spent or error.spent
                if error.for_all:
                    self._out.add(engine.name)
                continue
            if best is None or _is_better(read, best):
                best = read
            if not _doubts(best):
                break
        if best is None:
            about = [
                one for one in self.failures if one.page in {None, page.number + 1} or one.engine in self._out
            ]
            raise NobodyRead(about, passing=passing and not spent)
        return best


def _doubts(read: PageText) -> bool:
    return not read.text.strip() or (read.confidence is not None and read.confidence < DOUBT)


def _is_better(read: PageText, than: PageText) -> bool:
    """Who says nothing of its confidence was asked because the one before doubted."""
    if not read.text.strip():
        return False
    if read.confidence is None or than.confidence is None:
        return True
    return read.confidence > than.confidence
