"""An engine that is a route: whoever on it transcribes first."""

from collections.abc import Callable, Sequence
from pathlib import Path

from baatcheet.audio.engines.model import EngineFailed, Wish
from baatcheet.audio.engines.provider import ProviderEngine
from baatcheet.audio.transcript import Heard
from baatcheet.providers.routing.model import RouteUnfit
from baatcheet.providers.routing.router import Speaker


class RoutedEngine:
    """The route `name`, which `speakers` follows anew for every piece: it may have been changed meanwhile."""

    languages = None
    words = True  # whoever does not tell them is passed over when they are asked for

    def __init__(self, name: str, speakers: Callable[[str], Sequence[Speaker]]) -> None:
        self.name = name
        self._speakers = speakers

    async def transcribe(self, piece: Path, seconds: float, wish: Wish) -> Heard:
        try:
            engines = [ProviderEngine(one.provider, one.model) for one in self._speakers(self.name)]
        except RouteUnfit as unfit:
            raise EngineFailed(str(unfit), passing=False) from unfit
        able = [one for one in engines if one.words or not wish.words]
        if not able:
            words = f"The times of words are told by nobody on the route {self.name!r}."
            raise EngineFailed(words, passing=False)
        failures: list[EngineFailed] = []
        for engine in able:
            try:
                return await engine.transcribe(piece, seconds, wish)
            except EngineFailed as failure:
                failures.append(failure)
        waits = [one.after for one in failures if one.after is not None]
        raise EngineFailed(
            " ".join(str(one) for one in failures),
            passing=any(one.passing for one in failures),
            after=min(waits, default=None),
        ) from failures[-1]
