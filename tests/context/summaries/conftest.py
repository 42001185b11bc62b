"""Models that speak to the scripted provider over real HTTP."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from baatcheet.providers.model import ModelCard, Target
from tests.providers.conftest import (  # noqa: F401 - fixtures
    MakeProvider,
    _running_upstream,
    make_provider,
    second,
    session,
    upstream,
)

Targets = Callable[[], Awaitable[Sequence[Target]]]
MakeTargets = Callable[..., Targets]


@pytest.fixture
def make_targets(make_provider: MakeProvider) -> MakeTargets:  # noqa: F811 - the fixture
    """The providers at these addresses (default: the first), each with a model of this window."""

    def make(*addresses: str, window: int = 32_768, model: str = "scripted", **card: object) -> Targets:
        providers = [
            make_provider(f"lab{number}", address) for number, address in enumerate(addresses or [None])
        ]
        made = [
            Target(one, ModelCard(provider=one.name, name=model, context_window=window, **card))  # type: ignore[arg-type]  # any field
            for one in providers
        ]

        async def targets() -> Sequence[Target]:
            return made

        return targets

    return make
