"""A deployment of BaatCheet with keys in an encrypted file, at a FAKE provider that knows them."""

import asyncio
import re
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from baatcheet.keys.secret import SecretKey
from baatcheet.keys.stores.encrypted_file import EncryptedFileStore
from baatcheet.keys.stores.private_keys import KEY_FILE, KeyFileSource
from baatcheet.platform.settings import Settings, load
from benchmarks.context.workplace import services
from benchmarks.keys.upstream import MODELS, Account, Manner, Seen, Told
from benchmarks.load import Server
from benchmarks.processes import Cpu, NotStartedError, command, cpu, descendants, first_line, running
from benchmarks.servers import TOKEN

PROCESSES: Final = 4  # that serve; a worker beside them
LIMIT: Final = 1_000_000  # requests of a key and day: counted and lent in slices, never used up here
ROTATED: Final = {"like_groq": 14, "like_openrouter": 12, "like_deepseek": 4, "like_gemini": 3, "like_hf": 5}
SOUND, SPOILT, MANY, KEYLESS = "sound", "spoilt", "many", "keyless"
POOLS: Final = {**ROTATED, SOUND: 14, SPOILT: 14, MANY: 38}
_START_SECONDS = 120.0
_API = "baatcheet.entrypoints.api"
_SERVE = "from baatcheet.entrypoints.cli import main; main()"  # what the console script does


def new_keys(count: int) -> list[str]:
    """Keys as Groq's are: 56 characters."""
    return [f"gsk_{secrets.token_hex(26)}" for _ in range(count)]


@dataclass(frozen=True)
class Upstream:
    """The FAKE provider."""

    url: str
    pid: int

    @property
    def server(self) -> Server:
        return Server.at(self.url)

    async def tell(self, keys: Sequence[str], manner: Manner) -> None:
        """What becomes of requests with `keys` from now on."""
        await self._ask(self.server.post(msgspec.json.encode(Told(list(keys), manner)), "/keys"))

    async def seen(self) -> Seen:
        return msgspec.json.decode(await self._ask(self.server.get("/seen")), type=Seen)

    async def accounts(self, keys: Sequence[str]) -> list[Account]:
        """Of those of `keys` that have come."""
        accounts = (await self.seen()).accounts
        return [accounts[key] for key in keys if key in accounts]

    async def _ask(self, request: bytes) -> bytes:
        connection = await self.server.connect()
        try:
            return (await connection.ask(request)).body
        finally:
            connection.close()


@dataclass(frozen=True)
class Deployment:
    """`baatcheet serve`. `keys`: what its store held at the start, by provider; `file`: the store."""

    server: Server
    upstream: Upstream
    keys: Mapping[str, Sequence[str]]
    store: EncryptedFileStore
    database: str
    pids: tuple[int, ...]  # that serve HTTP
    log: Path

    def cpu(self) -> Cpu:
        """What the processes that serve HTTP have used."""
        return cpu(self.pids)

    async def stage(self, provider: str, keys: Sequence[str]) -> None:
        await self.store.stage(provider, [SecretKey(key) for key in keys])

    async def api(self, method: str, path: str, body: object = None) -> Any:
        """What the API answers an administrator. Raises AssertionError unless it is a success."""
        data = b"" if body is None else msgspec.json.encode(body)
        request = self.server.post(data, path)
        if method == "GET":
            request = request.replace(b"POST", b"GET", 1)
        connection = await self.server.connect()
        try:
            answer = await connection.ask(request)
        finally:
            connection.close()
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {answer.body[:500]!r}"
        return msgspec.json.decode(answer.body)

    @asynccontextmanager
    async def rows(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.database)
        try:
            yield connection
        finally:
            await connection.close()


@contextmanager
def deployed(*, watch_seconds: float) -> Iterator[Deployment]:
    """The deployment, ready. Raises NotStartedError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="baatcheet-bench-")))
        settings = stack.enter_context(services())
        process = stack.enter_context(running("-m", "benchmarks.keys.upstream"))
        upstream = Upstream(first_line(process), process.pid)
        keys = {provider: new_keys(count) for provider, count in POOLS.items()}
        environ = _environ(settings, upstream, folder, watch_seconds)
        store = EncryptedFileStore.of(load(environ, dotenv=None).secrets)
        asyncio.run(_fill(store, upstream, keys))
        log = folder / "server.log"
        serving = stack.enter_context(running("-c", _SERVE, "serve", environ=environ, folder=folder, log=log))
        end = time.monotonic() + _START_SECONDS
        while not (found := re.search(r"is ready at (http://\S+)", log.read_text(encoding="utf-8"))):
            if serving.poll() is not None or time.monotonic() > end:
                said = log.read_text(encoding="utf-8")[-4000:]
                raise NotStartedError(f"baatcheet serve did not start:\n{said}")
            time.sleep(0.05)
        family = descendants(serving.pid)
        pids = tuple(pid for pid in family if pid != serving.pid and _API in command(pid))
        server = Server.at(found.group(1), TOKEN)
        yield Deployment(server, upstream, keys, store, environ["DATABASE_URL"], pids, log)


async def _fill(store: EncryptedFileStore, upstream: Upstream, keys: Mapping[str, Sequence[str]]) -> None:
    await store.create(KeyFileSource(store.path.parent / KEY_FILE))
    await store.add({provider: [SecretKey(key) for key in some] for provider, some in keys.items()})
    for some in keys.values():
        await upstream.tell(some, "good")


def _environ(settings: Settings, upstream: Upstream, folder: Path, watch_seconds: float) -> dict[str, str]:
    assert settings.database.url is not None
    assert settings.cache.url is not None
    providers = [
        {"name": name, "base_url": f"{upstream.url}/{name}/v1", "models": MODELS}
        for name in (*POOLS, KEYLESS)
    ]
    limits = {name: {"requests_per_day": LIMIT} for name in POOLS}
    return {
        "DATABASE_URL": settings.database.url.get_secret_value(),
        "REDIS_URL": settings.cache.url.get_secret_value(),
        "BAATCHEET_DATA_DIR": str(folder / "data"),
        "BAATCHEET_HOST": "127.0.0.1",
        "BAATCHEET_PORT": "0",
        "BAATCHEET_PROCESSES": str(PROCESSES),
        "BAATCHEET_ADMIN_TOKEN": TOKEN,
        "BAATCHEET_REQUESTS_PER_MINUTE": "0",
        "BAATCHEET_SECRET_STORES": "file",
        "BAATCHEET_SECRETS_FILE": str(folder / ".env.secrets"),
        "BAATCHEET_PROVIDERS": msgspec.json.encode(providers).decode(),
        "BAATCHEET_KEY_LIMITS": msgspec.json.encode(limits).decode(),
        "BAATCHEET_KEY_ROTATION_WATCH_SECONDS": f"{watch_seconds:g}",
        "OLLAMA_HOST": "",
    }
