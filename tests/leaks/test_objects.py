"""What holds keys in memory can't be made to say them: printed, dumped, copied, pickled, or with a crash's locals."""

import asyncio
import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import reprlib
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from pydantic import BaseModel, SecretStr, TypeAdapter

from baatcheet.attachments.ocr.ocr_space import OcrSpaceEngine
from baatcheet.entrypoints.keyring import build_ring, keys_of_environment
from baatcheet.jobs.isolation import Sandbox
from baatcheet.keys.pool import PooledKey
from baatcheet.keys.probing import Probed
from baatcheet.keys.rotation.provisioners import NewKey, OpenAIKeys, OpenRouterKeys
from baatcheet.keys.secret import KeyNotUsable, SecretKey
from baatcheet.keys.stores.model import KeySet, Versions
from baatcheet.platform import logging as our_logging
from baatcheet.platform.database import Database
from baatcheet.platform.http import client_session
from baatcheet.platform.redaction import register_secret
from baatcheet.platform.settings import DatabaseSettings, Settings, SettingsError, TelemetrySettings, load
from baatcheet.providers.adapters.anthropic import AnthropicAdapter
from baatcheet.providers.adapters.openai import OpenAIAdapter
from baatcheet.providers.catalogue import build_catalogue
from baatcheet.providers.pooled import Loan, loan_of
from baatcheet.providers.profiles import Profile
from tests.leaks.canaries import ALPHANUMERIC, HEX, WORD, Canary, Search, canary

KEYS = [
    canary("groq", "gsk_", ALPHANUMERIC, 52),
    canary("vault token", "hvs.", ALPHANUMERIC, 24),
    canary("private key", "", HEX, 64),
    canary("lab", "", WORD, 40),
    canary("header", "", WORD, 40),
    canary("ocr_space", "K8", "0123456789", 13),
]
GROQ, VAULT, PRIVATE, LAB, HEADER, OCR = KEYS


def crash(holder: Any) -> str:
    """What a crash reporter that shows local variables makes of a frame with `holder` in it."""

    def fails(holder: Any) -> None:
        parts = [holder, {"holder": holder}, (holder,)]
        raise RuntimeError("it went wrong", len(parts))

    try:
        fails(holder)
    except RuntimeError as error:
        del holder
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    raise AssertionError("unreachable")


WRITTEN: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "format": lambda thing: f"{thing}",
    "format, padded": lambda thing: f"{thing:>80}",
    "%s": lambda thing: "%s %r" % (thing, thing),  # noqa: UP031 - as loggers do
    "str.format": lambda thing: str.format("{0} {0!r} {0!s}", thing),
    "in a list": lambda thing: repr([thing, {"it": thing}]),
    "reprlib": reprlib.repr,
    "pprint": pprint.pformat,
    "json": json.dumps,
    "json, as text": lambda thing: json.dumps(thing, default=str),
    "json, by its fields": lambda thing: json.dumps(thing, default=vars, skipkeys=True),
    "msgspec": msgspec.json.encode,
    "msgspec, as text": lambda thing: msgspec.json.encode(thing, enc_hook=str),
    "msgspec, built-ins": lambda thing: repr(msgspec.to_builtins(thing, enc_hook=repr)),
    "msgpack": msgspec.msgpack.encode,
    "pydantic": lambda thing: TypeAdapter(Any).dump_json(thing),
    "pydantic, as text": lambda thing: TypeAdapter(Any).dump_json(thing, fallback=str),
    "model_dump": lambda thing: repr(thing.model_dump()),
    "model_dump, json": lambda thing: repr(thing.model_dump(mode="json")),
    "model_dump_json": lambda thing: thing.model_dump_json(),
    "asdict": lambda thing: repr(dataclasses.asdict(thing)),
    "vars": lambda thing: repr(vars(thing)),
    "copy": lambda thing: repr(copy.copy(thing)),
    "deepcopy": lambda thing: repr(copy.deepcopy(thing)),
    "pickle": pickle.dumps,
    "pickle, the oldest": lambda thing: pickle.dumps(thing, 0),
    "traceback with locals": crash,
}

# Pydantic's own secrets can be pickled, and have fields: settings are neither pickled nor taken apart.
MEMORY = {"pickle", "pickle, the oldest", "json, by its fields"}
COPIES = {"copy", "deepcopy", "pickle", "pickle, the oldest"}
# What has open connections is not copied: a copy would close them.
PARTS = {"KeyRing", "Catalogue", "PooledProvider", "OpenAIAdapter", "AnthropicAdapter", "OcrSpaceEngine",
         "OpenRouterKeys", "OpenAIKeys", "Profile"}  # fmt: skip
DUMPS = {"json, by its fields", "msgspec", "msgspec, as text", "msgspec, built-ins", "msgpack", "pydantic",
         "pydantic, as text", "asdict", "vars"}  # fmt: skip


@pytest.fixture(scope="module")
def search() -> Search:
    return Search(KEYS)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    custom = {"name": "lab", "base_url": "http://127.0.0.1:9/v1", "api_key": LAB.text}
    return load(
        {
            "DATABASE_URL": "postgresql://someone@127.0.0.1:9/none",
            "GROQ_API_KEY_1": GROQ.text,
            "OCR_SPACE_API_KEY": OCR.text,
            "OPENROUTER_PROVISIONING_KEY": GROQ.text,
            "BAATCHEET_PROVIDERS": json.dumps([{**custom, "headers": {"x-gateway-key": HEADER.text}}]),
            "BAATCHEET_SECRET_STORES": "vault,aws,file,environment",
            "BAATCHEET_SECRETS_FILE": str(tmp_path / "secrets"),
            "DOTENV_PRIVATE_KEY_SECRETS": PRIVATE.text,
            "VAULT_ADDR": "http://127.0.0.1:9",
            "VAULT_TOKEN": VAULT.text,
        },
        dotenv=None,
    )


@pytest_asyncio.fixture
async def holders(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    """Everything that holds keys, by name."""
    key = SecretKey(GROQ.text)
    database = Database(DatabaseSettings(url=settings.database.url), pool_size=1)
    ring = build_ring(settings, database)
    for provider, keys in keys_of_environment(settings).items():
        pool = ring.pool(provider)
        pooled = [PooledKey(one.fingerprint(b"secret", provider), one.hint, one) for one in keys]
        pool.replace(pooled)
        pool.grant(pooled[0].id, int(time.time() // 86_400), 100, 0)
    pool = ring.pool("groq")
    async with client_session() as session:
        profile = Profile("groq", "http://127.0.0.1:9/v1", headers={"x-gateway-key": HEADER.text})
        catalogue = build_catalogue(settings.providers, session, ring.pools)
        keyset = KeySet("groq", (key, key), "7")
        yield {
            "SecretKey": key,
            "KeySet": keyset,
            "Versions": Versions(keyset, keyset, None),
            "PooledKey": PooledKey("0" * 32, key.hint, key),
            "Lease": pool.pick(),
            "KeyPool": pool,
            "Pools": ring.pools,
            "KeyRing": ring,
            **{f"the store {store.name}": store for store in ring.stores},
            "Loan": Loan(key),
            "the loan of a pool": loan_of(pool),
            "Profile": profile,
            "OpenAIAdapter": OpenAIAdapter(profile, session, access=lambda: loan_of(pool)),
            "AnthropicAdapter": AnthropicAdapter(profile, session, access=lambda: loan_of(pool)),
            "Catalogue": catalogue,
            "PooledProvider": catalogue.known[0],
            "OcrSpaceEngine": OcrSpaceEngine(
                session,
                Sandbox(1),
                url="http://x",
                pool=ring.pool("ocr_space"),
                max_bytes=1,
            ),
            "OpenRouterKeys": OpenRouterKeys(session, lambda: key),
            "OpenAIKeys": OpenAIKeys(session, lambda: key, "p"),
            "NewKey": NewKey("at", key),
            "Probed": Probed("good", "It lists 2 models."),
        }
        await catalogue.close()
    for store in ring.stores:
        await store.close()
    await database.close()


def said(way: str, thing: Any) -> bytes:
    """What is made of it in this way, or what is said when that is refused."""
    try:
        made = WRITTEN[way](thing)
    except Exception as error:  # noqa: BLE001 - any refusal will do, as long as it tells nothing
        # The locals of a copy that is given up are half-made things.
        told = traceback.TracebackException.from_exception(error, capture_locals=way not in COPIES)
        made = "".join(told.format())
    return made if isinstance(made, bytes) else str(made).encode()


@pytest.mark.parametrize("way", WRITTEN)
async def test_nothing_that_holds_a_key_says_it(holders: dict[str, Any], search: Search, way: str) -> None:
    if way in COPIES:
        for part in [name for name in holders if name in PARTS]:
            del holders[part]
    elif way in DUMPS:
        del holders["Profile"]  # the headers that a request carries are its plain data, which nobody dumps
    leaks = {
        name: [str(leak) for leak in found]
        for name, holder in holders.items()
        if (found := search.everything({name: said(way, holder)}))
    }
    assert leaks == {}


@pytest.mark.parametrize("way", [way for way in WRITTEN if way not in MEMORY])
def test_settings_do_not_say_their_secrets(settings: Settings, search: Search, way: str) -> None:
    groups = [
        settings,
        settings.providers,
        settings.providers.custom[0],
        settings.secrets,
        settings.provider_keys,
    ]
    for group in groups:
        assert search.everything({way: said(way, group)}) == []


@pytest.mark.parametrize("text", [key.text for key in KEYS], ids=[key.name for key in KEYS])
def test_a_key_that_is_no_key_is_not_repeated_by_whoever_refuses_it(text: str, search: Search) -> None:
    class Wants(BaseModel):
        number: int = 0
        key: SecretStr

    for refused in (
        lambda: SecretKey(text + "\n"),
        lambda: SecretKey(text + " " + text),
        lambda: SecretKey(text * 400),
        lambda: load(
            {"BAATCHEET_PROVIDERS": json.dumps([{"name": "lab", "api_key": text + "é"}])}, dotenv=None
        ),
        lambda: load({"BAATCHEET_PROVIDERS": f'[{{"api_key": "{text}"'}, dotenv=None),
        lambda: load({"GROQ_API_KEY": f"{text} {text}"}, dotenv=None),
        lambda: load({"VAULT_ADDR": f"https://{text}:{text}@vault:x"}, dotenv=None),
        lambda: load({"BAATCHEET_SECRETS_REFRESH_SECONDS": text}, dotenv=None),
        lambda: load({"DATABASE_URL": f"mysql://a:{text}@b/c"}, dotenv=None),
    ):
        with pytest.raises((KeyNotUsable, SettingsError)) as raised:
            refused()
        assert search.everything({"refusal": f"{raised.value} {raised.value!r}".encode()}) == []


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What the process logs from here on."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    out = io.StringIO()
    our_logging.configure(
        TelemetrySettings(log_level="debug", log_format="json", otlp_endpoint=None, metrics_public=True), out
    )
    yield out
    root.handlers[:] = before
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)


def fails_with(key: Canary) -> None:
    """A crash in a frame that has a key's text, which is in the exception, its cause, its notes and its arguments."""
    header = {"authorization": f"Bearer {key.text}"}
    try:
        json.loads(f"[{key.text}")
    except ValueError as cause:
        error = RuntimeError(f"could not send {header}", key.text.encode(), [key.text[:30], key.text[30:]])
        error.add_note(f"it was {key.text.encode().hex()}")
        raise error from cause


def test_a_crash_is_logged_without_the_keys_in_its_words(search: Search, logged: io.StringIO) -> None:
    for key in (GROQ, LAB, PRIVATE):
        register_secret(key.text, fragments=True)
        try:
            fails_with(key)
        except RuntimeError as error:
            our_logging.get_logger("tests").error("it.crashed", error=error, words=str(error), it=error)
            logging.getLogger("another.library").exception("failed with %r", error.args)
            sys.excepthook(type(error), error, error.__traceback__)
        thread = threading.Thread(target=fails_with, args=(key,))
        thread.start()
        thread.join()
    assert logged.getvalue().count('"traceback"') == 12
    assert "fails_with" in logged.getvalue()
    assert search.everything({"log": logged.getvalue().encode()}) == []


async def test_a_task_that_crashes_unseen_is_logged_without_keys(search: Search, logged: io.StringIO) -> None:
    register_secret(GROQ.text, fragments=True)

    async def fails() -> None:
        fails_with(GROQ)

    task = asyncio.ensure_future(fails())
    await asyncio.wait([task])
    loop = asyncio.get_running_loop()
    loop.default_exception_handler(
        {"message": "never retrieved", "exception": task.exception(), "task": task}
    )
    assert '"traceback"' in logged.getvalue()
    assert search.everything({"log": logged.getvalue().encode()}) == []
