"""The engines of this machine: each reads a page in a sandbox."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from baatcheet.attachments.ocr import rapid, tesseract
from baatcheet.attachments.ocr.availability import WITHOUT_DATA, WITHOUT_EXTRA, Tessdata, has_rapidocr
from baatcheet.attachments.ocr.engine import EngineFailed, Page, PageText
from baatcheet.attachments.ocr.languages import LANGUAGES
from baatcheet.attachments.ocr.rapid import RapidPage
from baatcheet.attachments.ocr.tesseract import TesseractPage
from baatcheet.jobs.isolation import Sandbox, SandboxFailed

SECONDS: Final = 180.0  # for one page
MEMORY: Final = 1_500_000_000  # bytes
_KINDS: Final = {
    "memory": "It needed more memory than it may have.",
    "time": f"It took longer than {SECONDS:g} s.",
    "crash": "Its process ended unexpectedly.",
    "error": "It failed unexpectedly.",
}


class TesseractEngine:
    """Tesseract with the language data that is installed."""

    name = tesseract.NAME

    def __init__(self, sandbox: Sandbox, find: Callable[[], Tessdata | None]) -> None:
        """`find` is asked before every page: data may be installed while we run."""
        self._sandbox = sandbox
        self._find = find

    def unavailable(self) -> str | None:
        return WITHOUT_DATA if self._find() is None else None

    async def read(self, page: Page, languages: Sequence[str], scratch: Path) -> PageText:
        data = self._find()
        if data is None:
            raise EngineFailed(WITHOUT_DATA, for_all=True)
        wanted = tuple(one for one in languages or data.languages if one in data.languages)
        if not wanted:
            missing = " or ".join(LANGUAGES[one].name for one in languages)
            raise EngineFailed(f"There is no language data for {missing}.", for_all=True)
        asked = TesseractPage(page, str(data.folder), wanted)
        try:
            return await self._sandbox.run(tesseract.read, asked, seconds=SECONDS, memory=MEMORY)
        except SandboxFailed as failure:
            raise _of(failure) from failure


class RapidOcrEngine:
    """RapidOCR, where its package is installed: Latin and Chinese letters, with models of its own."""

    name = rapid.NAME

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def unavailable(self) -> str | None:
        return None if has_rapidocr() else WITHOUT_EXTRA

    async def read(self, page: Page, languages: Sequence[str], scratch: Path) -> PageText:
        if languages and "en" not in languages:
            raise EngineFailed("It reads Latin and Chinese letters only.", for_all=True)
        try:
            return await self._sandbox.run(rapid.read, RapidPage(page), seconds=SECONDS, memory=2 * MEMORY)
        except SandboxFailed as failure:
            raise _of(failure) from failure


def _of(failure: SandboxFailed) -> EngineFailed:
    return EngineFailed(_KINDS[failure.kind], passing=failure.kind == "crash", spent=failure.kind == "time")
