"""Runs of the typesetter: one portion in, one PDF file out."""

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import typst

from baatcheet.exports.pdf.fonts import Shelf

_TEMPLATES: Final = Path(__file__).parent / "templates"
# What a run leaves in the typesetter's cache goes when this many runs have not asked for it.
_EMPTY_RUNS: Final = 12


class NotSet(Exception):
    """The typesetter could not set a portion."""


class Typesetter:
    """Sets portions in a folder that has the templates and the portions in it, and nothing else; that is all that the
    typesetter can read. `runs` is how many portions are set at once.
    """

    def __init__(self, folder: Path, shelf: Shelf, at: datetime, runs: int) -> None:
        self._folder = folder
        self._shelf = shelf
        self._at = at
        self._threads = ThreadPoolExecutor(runs, thread_name_prefix="typesetter")
        for template in _TEMPLATES.glob("*.typ"):
            shutil.copyfile(template, folder / template.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def begin(self, template: str, data: Path) -> "Future[Path]":
        """Set the portion at `data` in another thread."""
        return self._threads.submit(self.set, template, data, tagged=True)

    def set_now(self, template: str, name: str, data: msgspec.Struct, *, tagged: bool = True) -> Path:
        """Set `data`; the PDF file."""
        path = self._folder / f"{name}.json"
        path.write_bytes(msgspec.json.encode(data))
        return self.set(template, path, tagged=tagged)

    def set(self, template: str, data: Path, *, tagged: bool) -> Path:
        """Set the portion at `data`; the PDF file. Raises NotSet, and leaves the portion where it is."""
        target = data.with_suffix(".pdf")
        compiler = typst.Compiler(
            str(self._folder / template),
            root=str(self._folder),
            font_paths=self._shelf.fonts,
            sys_inputs={"data": data.name},
            package_path=str(self._folder),
            package_cache_path=str(self._folder),
        )
        try:
            compiler.compile(
                output=str(target), format="pdf", timestamp=self._at, pdf_standards=["1.7"], pdf_tags=tagged
            )
        except BaseException as error:
            # A panic of the typesetter's is no Exception, and has no public name.
            if isinstance(error, typst.TypstError) or type(error).__name__ == "PanicException":
                raise NotSet(str(error)) from error
            raise
        finally:
            del compiler
            self._forget()
        data.unlink()
        return target

    def _forget(self) -> None:
        for _ in range(_EMPTY_RUNS):
            typst.compile(b"", format="pdf", font_paths=self._shelf.fonts)
