"""A link in our documents leads somewhere."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.markdown import anchors, documents, links, name_of


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(document: Path) -> None:
    broken = [target for target in links(document) if not _leads_somewhere(document, target)]
    assert broken == []


def test_every_document_is_reached_from_the_readme() -> None:
    start = next(document for document in documents() if document.name == "README.md")
    reached, waiting = {start.resolve()}, [start]
    while waiting:
        document = waiting.pop()
        for target in links(document):
            path = _path_of(document, target)
            if path is not None and path.suffix == ".md" and path.is_file() and path not in reached:
                reached.add(path)
                waiting.append(path)
    assert [name_of(document) for document in documents() if document.resolve() not in reached] == []


def _leads_somewhere(document: Path, target: str) -> bool:
    path = _path_of(document, target)
    if path is None:
        return target.startswith("https://")
    anchor = target.partition("#")[2]
    return path.exists() and (not anchor or anchor in anchors(path))


def _path_of(document: Path, target: str) -> Path | None:
    """The file that a relative link names; None for an address."""
    if "://" in target:
        return None
    name = unquote(target.partition("#")[0])
    return (document.parent / name).resolve() if name else document.resolve()
