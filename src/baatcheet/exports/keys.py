"""Where the files of exports and imports are kept: a key follows from the row's id."""

from typing import Final
from uuid import UUID

from baatcheet.kit.ids import parse_id

EXPORTS: Final = "exports/"
IMPORTS: Final = "imports/"


def export_key(owner: UUID, export_id: UUID) -> str:
    return f"{EXPORTS}{owner}/{export_id}"


def import_key(owner: UUID, import_id: UUID) -> str:
    return f"{IMPORTS}{owner}/{import_id}"


def row_of(key: str) -> UUID | None:
    """The id of the row that a key follows from; None for what is no such key."""
    return parse_id(key.rpartition("/")[2])
