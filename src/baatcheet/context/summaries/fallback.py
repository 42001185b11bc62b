"""A summariser that stands in when another fails."""

from collections.abc import Sequence

from baatcheet.context.summaries.sections import Line, Summarizer, SummaryFailed
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)


class WithFallback:
    """`first`, and `otherwise` when it fails."""

    def __init__(self, first: Summarizer, otherwise: Summarizer) -> None:
        self._first = first
        self._otherwise = otherwise
        self._name = first.name

    @property
    def name(self) -> str:
        """The one that wrote last."""
        return self._name

    async def summarize(self, lines: Sequence[Line], tokens: int) -> str:
        try:
            text = await self._first.summarize(lines, tokens)
        except SummaryFailed as error:
            log.warning(
                "summary.fallback", failed=self._first.name, used=self._otherwise.name, reason=str(error)
            )
            text = await self._otherwise.summarize(lines, tokens)
            self._name = self._otherwise.name
        else:
            self._name = self._first.name
        return text
