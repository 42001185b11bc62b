"""The open connections that are not lent out: the newest is lent first, so that those too many grow old."""

import logging
import time
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry, Pool

# SQLAlchemy logs each connection that is replaced, by this name.
logging.getLogger(f"{__name__}.IdleConnections").setLevel(logging.WARNING)


class IdleConnections(Pool):
    """SQLAlchemy's side of the pool. It has no limit and no queue: whoever takes from it has a place already.

    For one event loop, so nothing is locked.
    """

    _is_asyncio = True

    def __init__(self, creator: Any, **named: Any) -> None:
        super().__init__(creator, **named)
        self.most = 1  # that may be open, lent out or not
        self._lent = 0
        self._idle: list[
            tuple[ConnectionPoolEntry, float]
        ] = []  # the last returned is the last, with its time

    @property
    def count(self) -> int:
        return len(self._idle)

    def open_one(self) -> None:
        """Open one more, to be there when it is needed."""
        self._idle.insert(0, (self._create_connection(), time.monotonic()))

    def surplus(self, warm: int, idle: float) -> list[ConnectionPoolEntry]:
        """Take out those to be closed.

        They are those that their server has closed already, all above `most`, and of those above `warm` the ones that
        nobody has needed for `idle` seconds.
        """
        dead = [one for one in self._idle if _is_closed(one[0])]
        living = [one for one in self._idle if not _is_closed(one[0])]
        old = time.monotonic() - idle
        kept: list[tuple[ConnectionPoolEntry, float]] = []
        total = self._lent + len(living)
        for one in living:  # the oldest first
            if total > self.most or (total > warm and one[1] < old):
                dead.append(one)
                total -= 1
            else:
                kept.append(one)
        self._idle = kept
        return [record for record, _ in dead]

    def _do_get(self) -> ConnectionPoolEntry:
        record = self._idle.pop()[0] if self._idle else self._create_connection()
        self._lent += 1
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._lent -= 1
        if record.dbapi_connection is None:  # it could not be opened, or was lost
            return
        if self._lent + len(self._idle) >= self.most:
            record.close()
        else:
            self._idle.append((record, time.monotonic()))

    def recreate(self) -> "IdleConnections":
        """As `Pool.recreate`."""
        fresh = self.__class__(
            self._creator,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            dialect=self._dialect,
            _dispatch=self.dispatch,
        )
        fresh.most = self.most
        return fresh

    def dispose(self) -> None:
        """Close them all."""
        while self._idle:
            self._idle.pop()[0].close()

    def status(self) -> str:
        return f"{self._lent} lent out, {len(self._idle)} idle, of {self.most}"


def _is_closed(record: ConnectionPoolEntry) -> bool:
    raw: Any = record.driver_connection
    return raw is None or raw.is_closed()
