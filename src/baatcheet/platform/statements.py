"""The statements that this process sends: how long each may take, and a line in the log of those that took long.

What a statement was given is never logged: its text is ours, and its literals are taken out of that, too.
"""

import asyncio
import logging
import re
import time
from typing import Any, Final

import asyncpg
from sqlalchemy import Engine, event

from baatcheet.platform.logging import get_logger

log = get_logger(__name__)
_stdlib = logging.getLogger(__name__)

LONGEST: Final = 2000  # characters of a statement that are logged
_LITERALS: Final = re.compile(
    r"""[eE]'(?:[^'\\]|\\.|'')*'?|'(?:[^']|'')*'?|\$([A-Za-z_]*)\$.*?(?:\$\1\$|\Z)""", re.DOTALL
)


def shown(statement: str) -> str:
    """A statement on one line, without its literals, cut at `LONGEST` characters."""
    return " ".join(_LITERALS.sub("'?'", statement[: 2 * LONGEST]).split())[:LONGEST]


class Watch:
    """Sees every statement that ends. Those that took `slow` seconds or longer are logged; at level debug, all."""

    def __init__(self, slow: float) -> None:
        self.slow = slow
        self.slow_seen = 0

    def seen(self, statement: str, parameters: int, seconds: float, error: BaseException | None) -> None:
        """A statement with so many parameters ended, well or not."""
        if seconds >= self.slow:
            self.slow_seen += 1
            log.warning("database.slow_statement", **_fields(statement, parameters, seconds, error))
        elif _stdlib.isEnabledFor(logging.DEBUG):
            log.debug("database.statement", **_fields(statement, parameters, seconds, error))

    def listen(self, engine: Engine) -> None:
        """See the statements that SQLAlchemy sends, too: those it prepares, which a connection does not tell of."""

        def begins(*arguments: Any) -> None:
            arguments[4].statement_began = time.monotonic()

        def ends(
            _connection: Any, _cursor: Any, statement: str, given: Any, context: Any, _many: Any
        ) -> None:
            self.seen(statement, _count(given), time.monotonic() - context.statement_began, None)

        def fails(what: Any) -> None:
            began = getattr(what.execution_context, "statement_began", None)
            if began is not None and what.statement is not None:
                seconds = time.monotonic() - began
                self.seen(what.statement, _count(what.parameters), seconds, what.original_exception)

        event.listen(engine, "before_cursor_execute", begins)
        event.listen(engine, "after_cursor_execute", ends)
        event.listen(engine, "handle_error", fails)


def _count(parameters: Any) -> int:
    return len(parameters) if parameters is not None else 0


def _fields(statement: str, parameters: int, seconds: float, error: BaseException | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "statement": shown(statement),
        "parameters": parameters,
        "ms": round(seconds * 1000, 1),
    }
    if error is not None:
        # Its text may quote what it was given.
        fields["failed"] = getattr(error, "sqlstate", None) or type(error).__name__
    return fields


class WatchedConnection(asyncpg.Connection):  # type: ignore[misc] # it has no types
    """A connection of the pool: a watch sees its statements."""

    watch: Watch | None = None
    _usual: Any = None

    def allow(self, seconds: float | None) -> None:
        """Wait so long for the answer to one statement from now on; None: as long as was said at connecting."""
        if seconds is None:
            if self._usual is not None:
                self._config, self._usual = self._usual, None
        else:
            self._usual = self._usual or self._config
            self._config = self._usual._replace(command_timeout=seconds)

    def _saw(self, query: str, arguments: int, began: float, error: BaseException | None = None) -> None:
        if self.watch is not None:
            self.watch.seen(query, arguments, time.monotonic() - began, error)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109
        if args:
            result: str = await super().execute(query, *args, timeout=timeout)  # by way of `_execute`
            return result
        began = time.monotonic()
        try:
            result = await super().execute(query, timeout=timeout)
        except BaseException as error:
            self._saw(query, 0, began, error)
            if isinstance(error, asyncio.CancelledError | TimeoutError):
                # A BEGIN or COMMIT may have been under way. Whoever got this connection next would write in a
                # transaction that nobody commits.
                self.terminate()
            raise
        self._saw(query, 0, began)
        return result

    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        began = time.monotonic()
        try:
            await super().executemany(command, args, timeout=timeout)
        except BaseException as error:
            self._saw(command, 0, began, error)
            raise
        self._saw(command, 0, began)

    async def _execute(self, query: str, args: Any, *rest: Any, **named: Any) -> Any:
        # What `fetch`, `fetchrow`, `fetchval` and an `execute` with parameters come down to.
        began = time.monotonic()
        try:
            result = await super()._execute(query, args, *rest, **named)
        except BaseException as error:
            self._saw(query, len(args), began, error)
            raise
        self._saw(query, len(args), began)
        return result
