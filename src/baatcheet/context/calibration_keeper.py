"""What was learned of models' tokenizers, kept in the database and shared by all processes."""

import asyncio
from typing import Any

import msgspec

from baatcheet.context.calibration import Sums
from baatcheet.context.tokenizers import MOST_MODELS, Tokenizers
from baatcheet.platform.database import Database, DatabaseUnavailable, is_unavailable
from baatcheet.platform.logging import get_logger

log = get_logger(__name__)

FLUSH_EVERY = 5.0  # seconds
REFRESH_EVERY = 12  # flushes between two looks at what others learned

_ALL = "SELECT model, state::text FROM token_calibrations ORDER BY updated_at DESC LIMIT $1"
_OPEN = "INSERT INTO token_calibrations (model, state) VALUES ($1, '{}') ON CONFLICT DO NOTHING"
_LOCK = "SELECT state::text FROM token_calibrations WHERE model = $1 FOR UPDATE"
_WRITE = "UPDATE token_calibrations SET state = $2::text::jsonb, updated_at = now() WHERE model = $1"


class CalibrationKeeper:
    """Writes down what `tokenizers` learn every few seconds, and reads what other processes learned."""

    def __init__(self, tokenizers: Tokenizers, db: Database) -> None:
        self._tokenizers = tokenizers
        self._db = db
        self._unsaved: dict[str, Sums] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what is known, and keep it up to date until `close`."""
        await self._tolerant(self.refresh())
        self._task = asyncio.create_task(self._run(), name="calibrations")

    async def refresh(self) -> None:
        """Read what is known of every model. Raises DatabaseUnavailable."""
        async with self._db.hot() as connection:
            rows = await connection.fetch(_ALL, MOST_MODELS)
        self._take()
        for model, state in reversed(rows):
            if model not in self._unsaved:
                self._tokenizers.replace(model, _read(state))

    async def flush(self) -> None:
        """Add what was learned here to what is shared. Raises DatabaseUnavailable, having lost nothing."""
        self._take()
        if not self._unsaved:
            return
        async with self._db.hot() as connection:
            for model in sorted(self._unsaved):
                try:
                    shared = await _merged(connection, model, self._unsaved[model])
                except Exception as error:
                    if connection.is_closed() or is_unavailable(error):
                        raise
                    # What one model's row is refused for must not keep the others' from being written.
                    log.warning("calibrations.dropped", model=model[:200], error=error)
                    del self._unsaved[model]
                    continue
                del self._unsaved[model]
                self._take()
                if model not in self._unsaved:
                    self._tokenizers.replace(model, shared)

    def _take(self) -> None:
        for model, calibration in self._tokenizers.calibrations.items():
            delta = calibration.take_delta()
            if delta is not None:
                self._unsaved.setdefault(model, Sums()).add(delta)

    async def _run(self) -> None:
        flushes = 0
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            flushes += 1
            await self._tolerant(self.flush() if flushes % REFRESH_EVERY else self._both())

    async def _both(self) -> None:
        await self.flush()
        await self.refresh()

    async def _tolerant(self, work: Any) -> None:
        try:
            await work
        except DatabaseUnavailable:
            log.warning("calibrations.not_kept", waiting=len(self._unsaved))
        except Exception as error:  # noqa: BLE001 - estimates are not worth a process
            log.warning("calibrations.failed", waiting=len(self._unsaved), error=error)

    async def close(self) -> None:
        """Write down what is left, if the database lets us."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._tolerant(self.flush())


async def _merged(connection: Any, model: str, delta: Sums) -> Sums:
    async with connection.transaction():
        await connection.execute(_OPEN, model)
        shared = _read(await connection.fetchval(_LOCK, model))
        shared.add(delta)
        await connection.execute(_WRITE, model, msgspec.json.encode(shared.document()).decode())
    return shared


def _read(state: str) -> Sums:
    try:
        document = msgspec.json.decode(state)
    except (msgspec.DecodeError, RecursionError):  # of numbers that only the database can hold
        return Sums()
    return Sums.read(document) if isinstance(document, dict) else Sums()
