"""What users have done in the background is shared out among them."""

from typing import Any

import pytest

from baatcheet.attachments.jobs import extract
from baatcheet.audio.jobs import transcribe
from baatcheet.exports.importing.jobs import import_conversations
from baatcheet.exports.jobs import render_export
from baatcheet.jobs.declaration import JobKind


@pytest.mark.parametrize(
    "kind", [extract, transcribe, render_export, import_conversations], ids=lambda kind: kind.name
)
def test_of_what_takes_long_one_user_has_one_place_at_a_time(kind: JobKind[Any, Any]) -> None:
    assert kind.lane_limit == 1
