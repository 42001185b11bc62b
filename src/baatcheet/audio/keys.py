"""Where the files of recordings are in the store."""

from typing import Final
from uuid import UUID

from baatcheet.kit.ids import parse_id

PREFIX: Final = "audio/"


def audio_key(owner: UUID, audio_id: UUID) -> str:
    """The file of a recording."""
    return f"{PREFIX}{owner}/{audio_id}"


def row_of(key: str) -> UUID | None:
    """The recording whose file is under `key`."""
    return parse_id(key.rpartition("/")[2])
