from pathlib import Path

import pytest

from baatcheet.exports.pdf.fonts import Shelf
from tests.exports.pdf.making import Publisher


@pytest.fixture(scope="session")
def shelf() -> Shelf:
    """The fonts of this machine."""
    return Shelf()


@pytest.fixture(scope="session")
def bare_shelf() -> Shelf:
    """The fonts of a machine that has none."""
    return Shelf(system=False)


@pytest.fixture
def publisher(tmp_path: Path, shelf: Shelf) -> Publisher:
    return Publisher(tmp_path, shelf)


@pytest.fixture
def bare_publisher(tmp_path: Path, bare_shelf: Shelf) -> Publisher:
    return Publisher(tmp_path, bare_shelf)
