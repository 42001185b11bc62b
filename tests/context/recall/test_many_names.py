"""A question with a long list of names in it."""

from datetime import UTC, datetime

import pytest

from baatcheet.context.recall.query import MOST_TERMS, understand

NAMES = [f"{first}{last}" for first in ("Bar", "Cal", "Del", "Fen", "Gor", "Hal") for last in (
    "dun", "mak", "nir", "pol", "rus", "sen", "tov", "vik", "wen", "yor"
)]  # fmt: skip


@pytest.mark.parametrize("count", [1, 39, 40, 60])
def test_what_is_asked_is_still_looked_for(count: int) -> None:
    asked = f"Which of these guests is allergic to peanuts: {', '.join(NAMES[:count])}?"
    weights = understand([asked], [], datetime(2026, 5, 1, tzinfo=UTC)).weights
    assert len(weights) <= MOST_TERMS
    assert any(term.startswith("peanut") for term in weights)
