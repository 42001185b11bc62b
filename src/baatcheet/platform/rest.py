"""What the REST surface's requests and answers are made of: ids in paths, pages, texts, partial updates."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, WithJsonSchema

from baatcheet.kit.ids import parse_id
from baatcheet.kit.pagination import DEFAULT_LIMIT, MAX_CURSOR, MAX_LIMIT, Slice
from baatcheet.kit.text import is_invisible, uncontrolled, unstorable

Row = TypeVar("Row")
Item = TypeVar("Item", bound=BaseModel)


def _canonical_id(value: object) -> object:
    if isinstance(value, UUID):
        return value
    found = parse_id(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("is not an id: 36 characters like 0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10")
    return found


def _digits(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) < 10):
        raise ValueError("is not a whole number")
    return value


def _word(value: object) -> object:
    if value not in {"true", "false"}:
        raise ValueError("must be true or false")
    return value == "true"


def _storable(value: str) -> str:
    if problem := unstorable(value):
        raise ValueError(problem)
    return value


def _on_one_line(value: str) -> str:
    if problem := uncontrolled(value):
        raise ValueError(problem)
    return value


def _visible(value: str) -> str:
    if is_invisible(value):
        raise ValueError("has nothing in it that can be seen")
    return value


def _moment(value: object) -> object:
    if isinstance(value, datetime):
        return value
    moment = None
    if isinstance(value, str):
        with suppress(ValueError, OverflowError):
            parsed = datetime.fromisoformat(value)
            # Without a zone there is no telling which moment; at the calendar's ends there is none in UTC.
            moment = parsed.astimezone(UTC) if parsed.tzinfo is not None else None
    if moment is None:
        raise ValueError("is not a moment like 2027-01-31T12:00:00Z, with its time zone")
    return moment


Id = Annotated[UUID, BeforeValidator(_canonical_id)]
"""An id in a body or a query: malformed ones are refused."""

PathId = Annotated[
    UUID, BeforeValidator(_canonical_id), Path(examples=["0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10"])
]
"""An id in a path: a malformed one is answered 404, like one that is not there."""

Flag = StrictBool
QueryFlag = Annotated[bool, BeforeValidator(_word), WithJsonSchema({"type": "boolean"})]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Text = Annotated[str, AfterValidator(_storable)]
"""A text that PostgreSQL can store: no NUL, no unpaired surrogate."""

Line = Annotated[Text, AfterValidator(_on_one_line)]
"""A text on one line: no control character."""

Name = Annotated[Line, Field(min_length=1, max_length=200), AfterValidator(_visible)]
"""What a person calls something, and will know it by in a list."""

Limit = Annotated[
    int,
    BeforeValidator(_digits),
    Query(ge=1, le=MAX_LIMIT, description="How many to answer at most."),
]
Cursor = Annotated[
    str | None,
    Query(max_length=MAX_CURSOR, description="`next_cursor` of the page before; absent: the first page."),
]
LIMIT = DEFAULT_LIMIT


class Body(BaseModel):
    """A request's body: a field that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Out(BaseModel):
    """An answer, read from a row."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[Item]):
    """A part of a list. Ask again with `cursor=next_cursor` for what follows."""

    data: list[Item]
    next_cursor: str | None = Field(description="Where the next page begins; null at the end.")
    has_more: bool


def page_fields(found: Slice[Row], item: Callable[[Row], Any]) -> dict[str, Any]:
    """A page's members, for a `Page` of the items that `item` makes of rows."""
    return {
        "data": [item(row) for row in found.rows],
        "next_cursor": found.next_cursor,
        "has_more": found.next_cursor is not None,
    }


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def absent(**arguments: Any) -> Any:
    """The default of a field that may be left out but, unless its type says so, not be null.

    Which fields were sent is in `model_fields_set`; `changes` reads it.
    """
    return Field(default=None, json_schema_extra=_without_default, **arguments)


def changes(body: BaseModel) -> dict[str, Any]:
    """The fields that a partial update carries."""
    return {name: getattr(body, name) for name in body.model_fields_set}
