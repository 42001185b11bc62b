"""`docs/reference/errors.md` lists the problems that the code has, and no others."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import baatcheet
from baatcheet.platform.errors import Problem
from tests.docs.markdown import ROOT

_ROW = re.compile(r"^\| `(?P<type>[a-z-]+)` \| (?P<status>\d{3}) \| `(?P<code>[a-z_]+)` \|", re.MULTILINE)
# Alembic runs these itself.
_NOT_IMPORTED = ("baatcheet.migrations",)

Row = tuple[str, int, str]


def _subclasses(kind: type[Problem]) -> Iterator[type[Problem]]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def _in_the_code() -> set[Row]:
    for module in pkgutil.walk_packages(baatcheet.__path__, "baatcheet."):
        if not module.name.startswith(_NOT_IMPORTED):
            importlib.import_module(module.name)
    ours = (kind for kind in _subclasses(Problem) if kind.__module__.startswith("baatcheet."))
    return {(kind.type, kind.status, kind.openai_code or kind.type) for kind in ours}


def _in_the_document() -> list[Row]:
    text = (ROOT / "docs/reference/errors.md").read_text("utf-8")
    return [(row["type"], int(row["status"]), row["code"]) for row in _ROW.finditer(text)]


def test_every_problem_of_the_code_is_in_the_reference_and_no_other() -> None:
    listed = _in_the_document()
    assert set(listed) == _in_the_code()
    assert len(listed) == len(set(listed)), "a problem is listed twice"
