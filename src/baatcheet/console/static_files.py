"""The style sheet, the scripts and the pictures: read once, named by their content, kept by browsers for a year.

`htmx.min.js` is htmx 4.0.1, the file `dist/htmx.min.js` of npm's package `htmx.org`; `htmx.LICENSE.txt` is its licence.
"""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

PREFIX: Final = "/console/static/"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class Asset:
    """A file as it is served."""

    body: bytes
    packed: bytes  # the same, by gzip
    headers: dict[str, str]


def _load() -> tuple[dict[str, Asset], dict[str, str]]:
    assets: dict[str, Asset] = {}
    addresses: dict[str, str] = {}
    for file in files(__package__).joinpath("static").iterdir():
        stem, dot, ending = file.name.rpartition(".")
        kind = _TYPES.get(dot + ending)
        if kind is None:
            continue
        body = file.read_bytes()
        name = f"{stem}.{hashlib.sha256(body).hexdigest()[:16]}.{ending}"
        headers = {
            "content-type": kind,
            "cache-control": "public, max-age=31536000, immutable",
            "vary": "accept-encoding",
        }
        assets[name] = Asset(body, gzip.compress(body, mtime=0), headers)
        addresses[file.name] = PREFIX + name
    return assets, addresses


ASSETS, _ADDRESSES = _load()


def address(name: str) -> str:
    """Where the file of this name is served."""
    return _ADDRESSES[name]
