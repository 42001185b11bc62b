"""Logs: one line per event, JSON or text, with the request's id and no secret.

    log = get_logger(__name__)
    log.info("turn.closed", turn_id=turn.id, ms=12.5)

An event's name is static and its details are fields, so that lines can be counted. Every logger of the
process, other libraries' included, writes through `configure`'s one handler, which redacts what is
registered as secret and what looks like a key: a last wall, not a licence to log secrets.
"""

import contextlib
import faulthandler
import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, TextIO
from urllib.parse import unquote, urlsplit

import msgspec
from pydantic import BaseModel, SecretStr

from baatcheet.kit.text import storable
from baatcheet.platform.redaction import redact, register_secret
from baatcheet.platform.settings import TelemetrySettings

MAX_TEXT: Final = 10_000  # characters of one field or traceback

# The request that this task works for; set by the ASGI frame, inherited by the tasks that a request starts.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_LEVELS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}
_encoder = msgspec.json.Encoder(enc_hook=str)


def register_secrets(settings: BaseModel) -> None:
    """Register every secret in `settings`, and the password of every address."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        values = [one for keys in value.values() for one in keys] if name == "provider_keys" else value
        if isinstance(values, dict):
            values = list(values.values())
        for one in values if isinstance(values, tuple | list) else (values,):
            if isinstance(one, BaseModel):
                register_secrets(one)
            elif isinstance(one, SecretStr):
                secret = one.get_secret_value()
                register_secret(secret)
                if "://" in secret and (password := urlsplit(secret).password):
                    register_secret(password)
                    register_secret(unquote(password))


class Logger:
    """A thin, typed front of one stdlib logger. A call whose level is off costs a dictionary look-up."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, /, **fields: object) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._write(logging.DEBUG, event, fields, None)

    def info(self, event: str, /, **fields: object) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._write(logging.INFO, event, fields, None)

    def warning(self, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
        """`error`, when given, is written with its traceback."""
        if self._logger.isEnabledFor(logging.WARNING):
            self._write(logging.WARNING, event, fields, error)

    def error(self, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
        """`error`, when given, is written with its traceback."""
        if self._logger.isEnabledFor(logging.ERROR):
            self._write(logging.ERROR, event, fields, error)

    def _write(
        self, level: int, event: str, fields: Mapping[str, object], error: BaseException | None
    ) -> None:
        cause = None if error is None else (type(error), error, error.__traceback__)
        record = logging.LogRecord(self._logger.name, level, "", 0, event, None, cause)
        record.fields = fields
        self._logger.handle(record)


def get_logger(name: str) -> Logger:
    """The logger of a module: `get_logger(__name__)`."""
    return Logger(logging.getLogger(name))


def configure(settings: TelemetrySettings, stream: TextIO | None = None) -> None:
    """Send every log line of the process to `stream` (default: standard error). Called once, at the start."""
    out = sys.stderr if stream is None else stream
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and out.isatty())
    handler = _Handler(out)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    # uvicorn brings handlers of its own, and an access log that ours replaces; the others say too much.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        theirs = logging.getLogger(name)
        theirs.handlers.clear()
        theirs.propagate = True
        theirs.setLevel(logging.NOTSET)
    logging.getLogger("uvicorn.access").disabled = True
    for name in (
        "uvicorn",
        "aiohttp",
        "alembic",
        "asyncio",
        "sqlalchemy",
        "redis",
        "opentelemetry",
        "python_multipart",
        "urllib3",
        "boto3",
        "botocore",
        "s3transfer",
    ):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
    # Nobody reads these four, and each costs something in every record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    _show_threads_when_asked()


def _show_threads_when_asked() -> None:
    """On SIGUSR1, write where every thread is to standard error, and go on. No local variable is written.

    Where standard error is closed or is no file, the signal is left as it was.
    """
    # UnsupportedOperation, which a stream without a file raises, is an OSError.
    with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):
        faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, event, request_id, fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {
            "time": f"{_clock(record.created)}.{int(record.msecs):03d}Z",
            "level": _LEVELS.get(record.levelno, "error"),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        if fields is None:
            document["event"] = "library.message"
            document["message"] = _message(record)
        else:
            document["event"] = record.msg
        if (request := request_id.get()) is not None:
            document["request_id"] = request
        if fields:
            document.update(fields)
        if record.exc_info and record.exc_info[1] is not None:
            document["traceback"] = render(record.exc_info[1])
        return redact(_encode(document))


class TextFormatter(logging.Formatter):
    """For people at a terminal: time, level, event, fields, and the traceback on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        parts = [
            f"{time.strftime('%H:%M:%S', time.localtime(record.created))}.{int(record.msecs):03d}",
            f"{_LEVELS.get(record.levelno, 'error'):<7}",
        ]
        if fields is None:
            parts += [record.name, _printable(_message(record))]
        else:
            parts.append(str(record.msg))
            parts += [f"{name}={_value(value)}" for name, value in fields.items()]
        if (request := request_id.get()) is not None:
            parts.append(f"request_id={request}")
        text = " ".join(parts)
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + "\n".join(_printable(line) for line in render(record.exc_info[1]).splitlines())
        return redact(text)


def render(error: BaseException) -> str:
    """The traceback of `error`, without local variables, its middle left out beyond `MAX_TEXT`."""
    text = "".join(traceback.format_exception(error))
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[: MAX_TEXT // 2]}\n… {len(text) - MAX_TEXT} characters …\n{text[-MAX_TEXT // 2 :]}"


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        # The stdlib's own would print the record's arguments past the redaction.
        kind = getattr(sys.exc_info()[0], "__name__", "unknown")
        sys.__stderr__ and sys.__stderr__.write(f"a log line of {record.name} could not be written: {kind}\n")


_second: tuple[int, str] = (0, "")


def _clock(created: float) -> str:
    global _second  # noqa: PLW0603 - strftime once a second, not once a line
    whole = int(created)
    if _second[0] != whole:
        _second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
    return _second[1]


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # someone else's format string does not fit its arguments
        return str(record.msg)


def _encode(document: dict[str, object]) -> str:
    for name, value in document.items():
        if isinstance(value, str) and len(value) > MAX_TEXT and name != "traceback":
            document[name] = value[:MAX_TEXT] + "…"
    try:
        return _encoder.encode(document).decode()
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        plain = {name: storable(str(value))[:MAX_TEXT] for name, value in document.items()}
        return _encoder.encode(plain).decode()


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = _printable(str(value)[:MAX_TEXT])
    return f'"{text}"' if " " in text else text


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _log_uncaught(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        get_logger("baatcheet").error("process.crashed", error=error)


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        get_logger("baatcheet").error("thread.crashed", error=args.exc_value)
