"""`docs/reference/events.md` lists the events of the live stream, with all their members."""

import re

from baatcheet.events.catalogue import CATALOGUE
from tests.docs.markdown import ROOT

_ROW = re.compile(r"^\| `(?P<name>[a-z_.]+)` \| (?P<tells>[^|]+) \|$", re.MULTILINE)
_NAME = re.compile(r"`([a-z_.]+)`")


def _live_stream() -> str:
    return (ROOT / "docs/reference/events.md").read_text("utf-8").partition("\n## The live stream\n")[2]


def test_every_type_is_listed_with_who_is_told_of_it() -> None:
    types, _, _ = _live_stream().partition("\n### Their data\n")
    listed = {row["name"]: row["tells"] for row in _ROW.finditer(types) if "." in row["name"]}
    assert list(listed) == [one.name for one in CATALOGUE]
    for one in CATALOGUE:
        assert ("*Not for webhooks.*" in listed[one.name]) != one.webhook, one.name
        assert ("Administrators only." in listed[one.name]) == one.admin, one.name


def test_every_member_of_their_data_is_explained() -> None:
    _, _, data = _live_stream().partition("\n### Their data\n")
    explained: dict[str, dict[str, str]] = {}
    # Each table stands below the types whose data it is.
    for names, table in re.findall(
        r"^(`.+`):\n\n\| member \| \|\n\|---\|---\|\n((?:\|.+\|\n)+)", data, re.MULTILINE
    ):
        members = {row["name"]: row["tells"] for row in _ROW.finditer(table)}
        explained |= dict.fromkeys(_NAME.findall(names), members)
    assert explained == {one.name: dict(one.fields) for one in CATALOGUE}
