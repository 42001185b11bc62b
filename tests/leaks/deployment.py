"""One deployment of real processes with a key of its own in every store, and everything that comes out of it."""

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import boto3
import httpx
import redis
from aiohttp import web
from coincurve import PrivateKey
from moto.server import ThreadedMotoServer

from baatcheet.auth.bootstrap import ensure_admin
from baatcheet.platform.database import connect
from baatcheet.platform.migrate import upgrade
from baatcheet.platform.settings import load
from tests.conftest import database_on
from tests.keys.stores.fake_vault import FakeVault
from tests.keys.stores.gate import Gate
from tests.leaks.canaries import ALPHANUMERIC, AWKWARD, HEX, WORD, Canary, canary
from tests.leaks.echoing import GOOD, EchoingProvider
from tests.running import ROOT, ApiProcess, WorkerProcess, worker_process
from tests.servers import at, past_bouncer
from tests.webhooks.receiver import Receiver

Result = TypeVar("Result")

ADMIN_TOKEN: Final = "bc_" + secrets.token_hex(24)
VAULT_PATH: Final = "secret/data/baatcheet/api-keys"
LOOK: Final = 0.05  # seconds
START: Final = 120.0  # seconds that a process may take to start
CLI: Final = (sys.executable, "-c", "from baatcheet.entrypoints.cli import main; main()")
# Providers, by the store that their keys are in.
CHATTING: Final = {
    "openai": "vault",
    "lab_aws": "aws",
    "lab_file": "file",
    "lab_env": "environment",
    "lab_inline": "environment",
}


class Loop:
    """An event loop in a thread of its own, for the servers that are FAKES."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fakes", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @staticmethod
    async def _end() -> None:
        """Nothing goes on in a loop that is no more."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for _ in range(3):  # what was closed hears of it
            await asyncio.sleep(0)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


class Collector:
    """A FAKE of an OpenTelemetry collector: it keeps the bytes that it is sent."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.url = ""

    async def start(self) -> None:
        app = web.Application(client_max_size=50_000_000)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.received.append(repr(dict(request.headers)).encode() + b"\n" + await request.read())
        return web.Response()


def plant() -> dict[str, list[Canary]]:
    """Keys by where they are put."""

    def several(name: str, public: str, alphabet: str, length: int, count: int) -> list[Canary]:
        return [canary(f"{name} {number}", public, alphabet, length) for number in range(1, count + 1)]

    return {
        "openai": several("vault/openai", "sk-proj-", WORD, 48, 3),
        "lab_aws": several("aws/lab_aws", "gsk_", ALPHANUMERIC, 52, 3),
        "lab_file": several("file/lab_file", "sk-or-v1-", HEX, 64, 3),
        "lab_env": several("environment/lab_env", "", AWKWARD, 40, 1),
        "lab_inline": several("BAATCHEET_PROVIDERS/lab_inline", "AIzaSy", WORD, 33, 1),
        "ocr_space": several("environment/ocr_space", "K8", "0123456789", 13, 2),
        "openai_admin": several("environment/openai_admin", "sk-admin-", WORD, 48, 1),
        "openrouter_provisioning": several("environment/provisioning", "sk-or-v1-", HEX, 64, 1),
        "staged": several("staged for lab_file", "sk-or-v1-", HEX, 64, 3),
        "given": several("given by the admin API", "sk-svcacct-", WORD, 48, 8),
        "spoiled": several("in a spoiled store", "sk-or-v1-", HEX, 64, 4),
        "vault": several("VAULT_TOKEN", "hvs.", ALPHANUMERIC, 24, 1),
        "aws": several("AWS_SECRET_ACCESS_KEY", "", ALPHANUMERIC + "+/", 40, 1),
        "private": several("the encrypted file's private key", "", HEX, 64, 1),
    }


@dataclass
class Evidence:
    """All that has come out, by where; and the keys that may not be in it."""

    canaries: list[Canary]
    documents: dict[str, bytes] = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)
    sent: Mapping[str, int] = field(default_factory=dict)
    rotations: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, name: str, data: bytes | str) -> None:
        with self._lock:
            number = len(self.documents)
            self.documents[f"{number} {name}"] = data.encode() if isinstance(data, str) else data

    def of(self, ending: str) -> list[bytes]:
        return [data for name, data in self.documents.items() if ending in name]


class Client(httpx.Client):
    """Speaks to the API; every answer is kept, head and body."""

    def __init__(self, url: str, evidence: Evidence, token: str | None = None) -> None:
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        super().__init__(base_url=url, headers=headers, timeout=60, trust_env=False)
        self._evidence = evidence

    def request(self, method: str, url: Any, **arguments: Any) -> httpx.Response:
        answer = super().request(method, url, **arguments)
        head = f"{answer.status_code} {answer.reason_phrase}\n{answer.headers.multi_items()!r}\n".encode()
        # The body on its own: it may be an archive.
        self._evidence.keep(f"the head of the answer to {method} {url}", head)
        self._evidence.keep(f"the answer to {method} {url}", answer.content)
        return answer


class Deployment:
    """An API process and a worker with their stores, providers, collector and receiver."""

    def __init__(self, folder: Path, evidence: Evidence, keys: Mapping[str, list[Canary]]) -> None:
        self.folder = folder
        self.evidence = evidence
        self.keys = keys
        self.loop = Loop()
        self.provider = EchoingProvider()
        self.collector = Collector()
        self.receiver = Receiver()
        self.vault = FakeVault()
        self.secrets_file = folder / ".env.secrets"
        self.environment: dict[str, str] = {}

    @contextmanager
    def running(self, services: Mapping[str, str]) -> Iterator[Self]:
        with ExitStack() as stack:
            stack.callback(self.vault.stop)
            stack.enter_context(self.loop)
            self._open_fakes(stack)
            self.environment = {
                **at(services, stack.enter_context(database_on(services["DATABASE_URL"]))),
                **self._settings(),
            }
            upgrade(past_bouncer(self.environment["DATABASE_URL"]))
            ensure_admin(
                self.environment["DATABASE_URL"],
                load({**self.environment, **self._custom()}, dotenv=None).auth,
            )
            self.environment |= self._custom()
            self._fill_stores()
            self.logs = [self.folder / "api.log", self.folder / "worker.log"]
            self.worker: WorkerProcess = stack.enter_context(
                worker_process(self.environment, self.logs[1], anew=True)
            )
            self.api = ApiProcess(self.environment, log=self.logs[0], anew=True)
            stack.callback(self.api.stop)
            self.api.start(START)
            self.admin = stack.enter_context(Client(self.api.url, self.evidence, ADMIN_TOKEN))
            yield self

    def _open_fakes(self, stack: ExitStack) -> None:
        moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        moto.start()
        stack.callback(moto.stop)
        self._moto = moto.get_host_and_port()
        self.gates = {"aws": Gate(*self._moto), "vault": Gate("127.0.0.1", self.vault.port)}
        for gate in self.gates.values():
            self.loop.run(gate.open())
        self.loop.run(self.provider.start())
        self.loop.run(self.collector.start())
        self.loop.run(self.receiver.__aenter__())
        for end in (self.provider.stop, self.collector.stop, *(gate.shut for gate in self.gates.values())):
            stack.callback(self._run, end)
        stack.callback(lambda: self.loop.run(self.receiver.__aexit__()))

    def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.loop.run(work())

    def _settings(self) -> dict[str, str]:
        keys, url = self.keys, self.provider.url
        token = self.vault.token()
        del self.vault.tokens[token.text]
        token.text = keys["vault"][0].text
        self.vault.tokens[token.text] = token
        return {
            "BAATCHEET_SECRET_STORES": "vault,aws,file,environment",
            "BAATCHEET_SECRETS_REFRESH_SECONDS": "1",
            "BAATCHEET_SECRETS_TIMEOUT": "1",
            "VAULT_ADDR": f"http://127.0.0.1:{self.gates['vault'].port}",
            "VAULT_TOKEN": token.text,
            "BAATCHEET_VAULT_PATH": VAULT_PATH,
            "BAATCHEET_AWS_ENDPOINT": f"http://127.0.0.1:{self.gates['aws'].port}",
            "BAATCHEET_AWS_SECRET_PREFIX": f"leaks-{secrets.token_hex(6)}/",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": keys["aws"][0].text,
            "AWS_EC2_METADATA_DISABLED": "true",
            "BAATCHEET_SECRETS_FILE": str(self.secrets_file),
            "DOTENV_PRIVATE_KEY_SECRETS": keys["private"][0].text,
            "LAB_ENV_KEY": keys["lab_env"][0].text,
            "OCR_SPACE_API_KEY_1": keys["ocr_space"][0].text,
            "OCR_SPACE_API_KEY_2": keys["ocr_space"][1].text,
            "OPENAI_ADMIN_KEY": keys["openai_admin"][0].text,
            "OPENROUTER_PROVISIONING_KEY": keys["openrouter_provisioning"][0].text,
            "OPENAI_PROJECT_ID": "proj_leaks",
            "BAATCHEET_OPENAI_ADMIN_URL": f"{url}/v1",
            "BAATCHEET_OPENROUTER_KEYS_URL": f"{url}/v1",
            "OPENAI_BASE_URL": f"{url}/v1",
            "BAATCHEET_OCR_SPACE_URL": f"{url}/parse/image",
            "BAATCHEET_OCR_ENGINES": "ocr_space",
            "BAATCHEET_AUDIO_ENGINES": "openai/whisper-1",
            "OLLAMA_HOST": "",
            "BAATCHEET_PROVIDER_CONNECT_TIMEOUT": "1",
            "BAATCHEET_PROVIDER_FIRST_TOKEN_TIMEOUT": "1",
            "BAATCHEET_PROVIDER_IDLE_TIMEOUT": "1",
            "BAATCHEET_KEY_ROTATION_WATCH_SECONDS": "1",
            "BAATCHEET_ADMIN_TOKEN": ADMIN_TOKEN,
            "BAATCHEET_REQUESTS_PER_MINUTE": "1000000",
            "BAATCHEET_TOKENS_PER_MINUTE": "1000000000",
            "BAATCHEET_GRACE_SECONDS": "1",
            "BAATCHEET_LOG_LEVEL": "debug",
            "BAATCHEET_LOG_FORMAT": "json",
            "BAATCHEET_DATA_DIR": str(self.folder / "data"),
            "BAATCHEET_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url,
        }

    def _custom(self) -> dict[str, str]:
        def lab(name: str, **more: object) -> dict[str, object]:
            return {"name": name, "base_url": f"{self.provider.url}/v1", **more}

        named = {"models": ["talks"], "embedding_models": ["vectors"]}
        return {
            "BAATCHEET_PROVIDERS": json.dumps(
                [
                    lab("lab_aws"),
                    lab("lab_file", **named),
                    lab("lab_env", api_key_env="LAB_ENV_KEY", **named),
                    lab("lab_inline", api_key=self.keys["lab_inline"][0].text, **named),
                ]
            ),
        }

    # The stores --------------------------------------------------------------------------------------------

    def _fill_stores(self) -> None:
        self.write_vault({"openai": [one.text for one in self.keys["openai"]]})
        self._aws = boto3.session.Session().client(
            "secretsmanager",
            region_name="us-east-1",
            endpoint_url="http://{}:{}".format(*self._moto),
            aws_access_key_id="id",
            aws_secret_access_key="secret",
        )
        self.write_aws(json.dumps({"keys": [one.text for one in self.keys["lab_aws"]]}), new=True)
        public = _public_key(self.keys["private"][0].text)
        self.secrets_file.write_text(f'DOTENV_PUBLIC_KEY_SECRETS="{public}"\n')
        # Anyone may add a key, as an operator does.
        typed = "\n".join(one.text for one in self.keys["lab_file"])
        self.cli("secrets", "set", "lab_file", typed=typed)
        assert self.secrets_file.read_text().count("encrypted:") == len(self.keys["lab_file"])

    def write_vault(self, entries: dict[str, Any]) -> None:
        self.vault.write(VAULT_PATH, entries)

    def write_aws(self, text: str, *, new: bool = False) -> None:
        name = f"{self.environment['BAATCHEET_AWS_SECRET_PREFIX']}lab-aws-api-keys"
        if new:
            self._aws.create_secret(Name=name, SecretString=text)
        else:
            self._aws.put_secret_value(SecretId=name, SecretString=text)

    # Acting ------------------------------------------------------------------------------------------------

    def cli(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[bytes]:
        """What an operator types, on this deployment's settings."""
        done = subprocess.run(
            [*CLI, *arguments],
            env={**self._inherited(), **self.environment},
            cwd=self.folder,
            input=typed.encode(),
            capture_output=True,
            timeout=START,
            check=False,
        )
        self.evidence.keep(f"baatcheet {' '.join(arguments)}", done.stdout + b"\n" + done.stderr)
        return done

    def commands(self, *lines: str) -> None:
        """What an operator looks at, all at once."""
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-m", "tests.leaks.commands", folder, json.dumps(lines)],
                env={
                    **self._inherited(),
                    **self.environment,
                    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                },
                cwd=self.folder,
                capture_output=True,
                timeout=2 * START,
                check=False,
            )
            self.evidence.keep("the commands' own process", done.stdout + done.stderr)
            for line in lines:
                self.evidence.keep(f"baatcheet {line}", Path(folder, f"{line}.out").read_bytes())
                assert Path(folder, f"{line}.status").exists(), line

    @staticmethod
    def _inherited() -> dict[str, str]:
        return {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BAATCHEET_", "OPENAI_"))
        }

    def together(self, *work: Callable[[], object]) -> None:
        """Do all of it at once, and wait."""
        with ThreadPoolExecutor(len(work)) as threads:
            for one in [threads.submit(one) for one in work]:
                one.result()

    @contextmanager
    def manner(self, manner: str | tuple[int, str]) -> Iterator[None]:
        """What providers do with whatever they are asked, within the block."""
        self.provider.manner = manner
        try:
            yield
        finally:
            self.provider.manner = GOOD

    def chat(self, provider: str, *, streamed: bool = False, **more: Any) -> httpx.Response:
        body = {"model": f"{provider}/talks", "message": "How are you?", "stream": streamed, **more}
        return self.admin.post("/api/v1/chat/completions", json=body)

    def complete(self, provider: str, *, streamed: bool = False) -> httpx.Response:
        messages = [{"role": "user", "content": "How are you?"}]
        body = {"model": f"{provider}/talks", "messages": messages, "stream": streamed}
        return self.admin.post("/v1/chat/completions", json=body)

    def embed(self, provider: str) -> httpx.Response:
        return self.admin.post(
            "/v1/embeddings", json={"model": f"{provider}/vectors", "input": "How are you?"}
        )

    def restore(self) -> None:
        """Make every key usable again, in every process."""

        def usable() -> bool:
            keys = self.admin.get("/api/v1/keys", params={"limit": 100}).json()["data"]
            for one in keys:
                if one["state"] != "active":
                    self.admin.post(f"/api/v1/keys/{one['id']}/restore")
            # What was learnt of a key just now is written within a second: it may be told of only then.
            return all(self.chat(provider).status_code == 200 for provider in CHATTING)

        eventually(usable, "every provider answers")

    def logged(self, event: str) -> int:
        """How many lines of both processes have this event."""
        return sum(log.read_bytes().count(f'"event":"{event}"'.encode()) for log in self.logs)

    # What has come out -------------------------------------------------------------------------------------

    def gather(self) -> None:
        """Everything that lies about, but the files that the keys are meant to be in."""
        keep = self.evidence.keep
        for log in self.logs:
            keep(log.name, log.read_bytes())
        for number, received in enumerate(self.collector.received):
            keep(f"traces {number}", received)
        for request in self.receiver.requests:
            keep(f"the webhook {request.path}", repr(request.headers).encode() + b"\n" + request.body)
        meant = {self.secrets_file}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path not in {*meant, *self.logs}:
                keep(str(path.relative_to(self.folder)), path.read_bytes())
        self.loop.run(self._dump_database())
        self._dump_cache()

    def note_processes(self) -> None:
        """What anybody on this machine sees of them."""
        for process in (self.api.process, self.worker.process):
            assert process is not None
            self.evidence.keep("a command line", Path(f"/proc/{process.pid}/cmdline").read_bytes())

    async def _dump_database(self) -> None:
        connection = await connect(self.environment["DATABASE_URL"])
        try:
            tables = await connection.fetch(
                "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
            for (table,) in tables:
                rows = await connection.fetch(f"SELECT t::text AS whole, t.* FROM {table} t")
                self.evidence.keep(f"the table {table}", "\n".join(row["whole"] for row in rows))
                for row in rows:
                    for name, value in row.items():
                        if isinstance(value, bytes):
                            self.evidence.keep(f"{table}.{name}", value)
            active = await connection.fetch("SELECT t::text AS whole FROM pg_stat_activity t")
            self.evidence.keep("pg_stat_activity", "\n".join(row["whole"] for row in active))
        finally:
            await connection.close()

    def _dump_cache(self) -> None:
        with redis.Redis.from_url(self.environment["REDIS_URL"]) as cache:
            for key in cache.scan_iter(count=1000):
                value: Any
                match cache.type(key):
                    case b"string":
                        value = cache.get(key)
                    case b"hash":
                        value = cache.hgetall(key)
                    case b"list":
                        value = cache.lrange(key, 0, -1)
                    case b"set":
                        value = cache.smembers(key)
                    case b"zset":
                        value = cache.zrange(key, 0, -1)
                    case b"stream":
                        value = cache.xrange(key)
                    case other:
                        raise AssertionError(f"the cache holds a {other!r}")
                self.evidence.keep("the cache", key + b"\n" + _raw(value))


def _raw(value: object) -> bytes:
    """Every byte of what the cache holds."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        return b"\n".join(_raw(one) for pair in value.items() for one in pair)
    if isinstance(value, Sequence | set) and not isinstance(value, str):
        return b"\n".join(_raw(one) for one in value)
    return str(value).encode()


def _public_key(private: str) -> str:
    return PrivateKey(bytes.fromhex(private)).public_key.format().hex()


def eventually(holds: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"it never came about that {what}"
        time.sleep(LOOK)


_LINK = re.compile(r'(?:href|action|src)="(/console[^"#]*)"')


def walk_console(url: str, evidence: Evidence, most: int = 150) -> list[str]:
    """Every page that the console's links lead to; their addresses."""
    with Client(url, evidence) as person:
        person.headers["sec-fetch-site"] = "same-origin"
        signed = person.post("/console/sign-in", data={"token": ADMIN_TOKEN})
        assert signed.status_code == 303, signed.text
        seen: list[str] = []
        ahead = ["/console", "/console/jobs", "/console/keys"]
        while ahead and len(seen) < most:
            path = ahead.pop(0)
            if path in seen:
                continue
            seen.append(path)
            page = person.get(path, follow_redirects=True)
            if "html" in page.headers.get("content-type", ""):
                links = [one.replace("&amp;", "&") for one in _LINK.findall(page.text)]
                ahead += [one for one in links if "sign-out" not in one and one not in seen]
        return seen


_WORDS: Final = {"name": ["fast", "ocr", "nightly clean-up"], "kind": ["key.quarantined"], "number": ["1"]}
_ENDLESS: Final = {"/api/v1/events": "?after=0&seconds=0"}


def walk_document(admin: Client, more: Mapping[str, Sequence[str]], most: int = 25) -> list[str]:
    """Ask every GET operation of the document, of each thing that there is; the operations that were asked."""
    document = admin.get("/api/openapi.json").json()
    listed: dict[str, list[str]] = {}

    def ids(path: str, name: str) -> list[str]:
        if name in more:
            return list(more[name])
        if path not in listed:
            answer = admin.get(path, params={"limit": 100})
            rows = answer.json().get("data", []) if answer.status_code == 200 else []
            listed[path] = [str(row.get("id") or row.get("name")) for row in rows][:most]
        return listed[path] or _WORDS.get(name, [])

    def addresses(path: str) -> Iterator[str]:
        before, brace, rest = path.partition("{")
        if not brace:
            yield path
            return
        name, _, after = rest.partition("}")
        for one in ids(before.rstrip("/"), name):
            yield from addresses(before + one + after)

    asked = []
    for path, operations in document["paths"].items():
        if "get" not in operations:
            continue
        for address in addresses(path):
            admin.get(address + _ENDLESS.get(path, ""), follow_redirects=True)
            asked.append(path)
    return asked


__all__ = ["CHATTING", "Deployment", "Evidence", "eventually", "plant", "walk_console", "walk_document"]
