"""OCR.space, a service elsewhere: one page at a time, as JPEG, with whichever key of its pool can be used.

Its protocol: a form is posted with the key in the header `apikey`; the answer is 200 and JSON whose `OCRExitCode` is 1
(all was read) or 2 (some), with `IsErroredOnProcessing` and `ErrorMessage` where not; a key that is not known, or used
up for the day, is answered 403 with a JSON string that says which.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from baatcheet.attachments.contents.examining import Sent, Size, picture_to_send
from baatcheet.attachments.ocr.availability import WITHOUT_KEY
from baatcheet.attachments.ocr.engine import Box, EngineFailed, Line, Page, PageText, Word
from baatcheet.attachments.ocr.languages import LANGUAGES, language_of
from baatcheet.jobs.isolation import Sandbox, SandboxFailed
from baatcheet.keys.pool import KeyPool, PoolExhausted
from baatcheet.keys.probing import Probed
from baatcheet.keys.secret import SecretKey
from baatcheet.platform.redaction import redact
from baatcheet.platform.threads import in_thread
from baatcheet.providers.model import FailureKind

NAME: Final = "ocr_space"
PROVIDER: Final = "ocr_space"  # whose pool of keys it is
SECONDS: Final = 90.0  # until a page is answered
PROBE_SECONDS: Final = 20.0
# A PNG of one white pixel.
_DOT: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg=="
MOST_ANSWER: Final = 8_000_000  # bytes
MOST_SIDE: Final = 5_000  # pixels that it takes
_READ: Final = frozenset({1, 2})  # exit codes with text
# "You may only perform this action upto maximum 500 number of times within 86400 seconds"
_USED_UP: Final = re.compile(r"number of times|maximum|limit|exceeded", re.IGNORECASE)

# Its first engine knows Arabic, its second Latin letters best, its third tells the others by itself.
_CHOICES: Final = {"en": ("eng", "2"), "ar": ("ara", "1"), "ur": ("auto", "3"), "hi": ("auto", "3")}
_ANY: Final = ("auto", "3")


class _WordAnswer(msgspec.Struct, rename="pascal"):
    word_text: str = ""
    left: float = 0
    top: float = 0
    height: float = 0
    width: float = 0


class _LineAnswer(msgspec.Struct, rename="pascal"):
    words: list[_WordAnswer] = []
    line_text: str | None = None


class _Overlay(msgspec.Struct, rename="pascal"):
    lines: list[_LineAnswer] | None = None


class _Parsed(msgspec.Struct, rename="pascal"):
    parsed_text: str | None = None
    text_overlay: _Overlay | None = None
    error_message: Any = None


class _Answer(msgspec.Struct):
    parsed: list[_Parsed] | None = msgspec.field(name="ParsedResults", default=None)
    exit_code: int | None = msgspec.field(name="OCRExitCode", default=None)
    errored: bool = msgspec.field(name="IsErroredOnProcessing", default=False)
    error: Any = msgspec.field(name="ErrorMessage", default=None)


class OcrSpaceEngine:
    """Asks OCR.space. Its confidence is not told, so none is made up."""

    name = NAME

    def __init__(
        self,
        session: aiohttp.ClientSession,
        sandbox: Sandbox,
        *,
        url: str,
        pool: KeyPool,
        max_bytes: int,
    ) -> None:
        self._session = session
        self._sandbox = sandbox
        self._url = url
        self._pool = pool
        self._max_bytes = max_bytes

    def unavailable(self) -> str | None:
        return None if self._pool else WITHOUT_KEY

    async def read(self, page: Page, languages: Sequence[str], scratch: Path) -> PageText:
        if not self._pool:
            raise EngineFailed(WITHOUT_KEY, for_all=True)
        path = scratch / "page.jpg"
        sent = Sent(page, str(path), self._max_bytes, MOST_SIDE)
        try:
            size = await self._sandbox.run(picture_to_send, sent)
        except SandboxFailed as failure:
            raise EngineFailed(str(failure)) from failure
        language, engine = _CHOICES[languages[0]] if len(languages) == 1 else _ANY
        answer = await self._ask(await in_thread(path.read_bytes), language, engine)
        return _page_text(answer, size, languages or tuple(LANGUAGES))

    async def _ask(self, picture: bytes, language: str, engine: str) -> _Answer:
        """What it answers to the first key that it takes. Raises EngineFailed."""
        tried: set[str] = set()
        failed: EngineFailed | None = None
        while True:
            try:
                lease = self._pool.pick(without=tried)
            except PoolExhausted as exhausted:
                words = f"OCR.space has no key that can be used now ({exhausted})."
                raise failed or EngineFailed(words, passing=True, for_all=True) from None
            tried.add(lease.id)
            try:
                answer = await self._post(lease.key, picture, language, engine)
            except _Refused as refused:
                lease.failed(refused.kind, status=refused.status, retry_after=None, message=str(refused))
                failed = refused
                if refused.kind in _AT_THE_ADDRESS:
                    raise
            except EngineFailed:  # the picture's fault, not the key's
                lease.done()
                raise
            except BaseException:
                lease.abandon()
                raise
            else:
                lease.done()
                return answer

    async def _post(self, key: SecretKey, picture: bytes, language: str, engine: str) -> _Answer:
        form = aiohttp.FormData()
        form.add_field("file", picture, filename="page.jpg", content_type="image/jpeg")
        for name, value in (
            ("language", language),
            ("OCREngine", engine),
            ("isOverlayRequired", "true"),
            ("detectOrientation", "true"),
            ("scale", "true"),
            ("filetype", "JPG"),
        ):
            form.add_field(name, value)
        return _decoded(*await _sent(self._session, self._url, key, form, SECONDS))


async def probe(session: aiohttp.ClientSession, url: str, key: SecretKey) -> Probed:
    """Whether OCR.space takes `key`: told by its answer to a picture of one dot, which costs one request of its day."""
    form = aiohttp.FormData()
    form.add_field("base64Image", f"data:image/png;base64,{_DOT}")
    try:
        status, body = await _sent(session, url, key, form, PROBE_SECONDS)
        _decoded(status, body)
    except _Refused as refused:
        return Probed("refused" if refused.kind == "unauthorized" else "unknown", str(refused))
    except EngineFailed:
        pass  # there is nothing to read in a dot
    return Probed("good", "It answers.")


async def _sent(
    session: aiohttp.ClientSession, url: str, key: SecretKey, form: aiohttp.FormData, seconds: float
) -> tuple[int, bytes]:
    """Its answer's status and body. Raises EngineFailed."""
    try:
        async with session.post(
            url,
            data=form,
            headers={"apikey": key.reveal()},
            timeout=aiohttp.ClientTimeout(total=seconds),
            allow_redirects=False,
        ) as response:
            return response.status, await _bounded(response)
    except TimeoutError as error:
        raise _Refused("timeout", f"OCR.space did not answer within {seconds:g} s.", passing=True) from error
    except aiohttp.ClientError as error:
        raise _Refused("unreachable", "OCR.space can't be reached.", passing=True) from error


_AT_THE_ADDRESS: Final[frozenset[FailureKind]] = frozenset({"timeout", "unreachable"})


class _Refused(EngineFailed):
    """It did not get as far as the picture. `kind`: as of a provider's failure."""

    def __init__(
        self,
        kind: FailureKind,
        words: str,
        *,
        status: int | None = None,
        passing: bool = False,
        for_all: bool = False,
    ) -> None:
        super().__init__(words, passing=passing, for_all=for_all)
        self.kind = kind
        self.status = status


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > MOST_ANSWER:
            raise EngineFailed("OCR.space answered more than can be a page.")
    return bytes(body)


def _decoded(status: int, body: bytes) -> _Answer:
    """Raises EngineFailed unless some text was read."""
    if status in {401, 402, 403}:
        said = _said(body)
        if _USED_UP.search(said):
            raise _Refused(
                "rate_limited",
                f"OCR.space was asked too often: {said}",
                status=429,
                passing=True,
                for_all=True,
            )
        raise _Refused("unauthorized", f"OCR.space refuses the key: {said}", status=status, for_all=True)
    if status == 429:
        raise _Refused(
            "rate_limited", "OCR.space was asked too often.", status=status, passing=True, for_all=True
        )
    if status >= 500:
        words = f"OCR.space answered with status {status}."
        raise _Refused("overloaded", words, status=status, passing=True)
    if status != 200:
        raise EngineFailed(f"OCR.space answered with status {status}.")
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.MsgspecError as error:
        raise EngineFailed("OCR.space answered with something that can't be read.") from error
    if answer.errored or answer.exit_code not in _READ or not answer.parsed:
        told = answer.error or next(
            (one.error_message for one in answer.parsed or () if one.error_message), ""
        )
        raise EngineFailed(f"OCR.space could not read it: {_words(told)}")
    return answer


def _said(body: bytes) -> str:
    try:
        return _words(msgspec.json.decode(body))
    except msgspec.DecodeError:
        return "it did not say why."


def _words(told: Any) -> str:
    """What it says of an error: a text, or a list of them."""
    texts = told if isinstance(told, list) else [told]
    words = redact(" ".join(one for one in texts if isinstance(one, str)).strip())[:300]
    return words or "it did not say why."


def _page_text(answer: _Answer, size: Size, languages: Sequence[str]) -> PageText:
    across, down = size.page_width / size.width, size.page_height / size.height
    texts: list[str] = []
    lines: list[Line] = []
    for parsed in answer.parsed or ():
        texts.append((parsed.parsed_text or "").replace("\r\n", "\n").strip())
        overlay = parsed.text_overlay
        for line in (overlay.lines if overlay is not None else None) or ():
            words = tuple(Word(one.word_text, _box(one, across, down)) for one in line.words)
            if words:
                text = line.line_text or " ".join(word.text for word in words)
                lines.append(Line(text, _around(words), None, words))
    text = "\n\n".join(one for one in texts if one)
    return PageText(
        text=text,
        engine=NAME,
        width=size.page_width,
        height=size.page_height,
        language=language_of(text, languages),
        lines=tuple(lines),
    )


def _box(word: _WordAnswer, across: float, down: float) -> Box:
    return Box(
        round(word.left * across),
        round(word.top * down),
        round((word.left + word.width) * across),
        round((word.top + word.height) * down),
    )


def _around(words: Sequence[Word]) -> Box:
    return Box(
        min(word.box.left for word in words),
        min(word.box.top for word in words),
        max(word.box.right for word in words),
        max(word.box.bottom for word in words),
    )
