"""The ring of a process, put together from its settings."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from baatcheet.entrypoints.features import share
from baatcheet.entrypoints.keyring import open_ring
from baatcheet.platform.database import Database
from baatcheet.platform.http import client_session
from baatcheet.platform.settings import Settings, SettingsError, load
from baatcheet.providers.catalogue import build_catalogue
from baatcheet.providers.routing.router import Router

LAB = json.dumps([{"name": "lab", "base_url": "https://llm.example.com/v1", "api_key_env": "LAB_KEY"}])


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


def settings_with(services: Mapping[str, str], folder: Path, **more: str) -> Settings:
    given = {
        **services,
        "BAATCHEET_PROVIDERS": LAB,
        "BAATCHEET_SECRETS_FILE": str(folder / ".env.secrets"),
        **more,
    }
    return load(given, dotenv=None)


async def test_a_provider_that_names_a_variable_which_is_not_set_stops_the_start(
    services: Mapping[str, str], database: Database, tmp_path: Path, stack: AsyncExitStack
) -> None:
    with pytest.raises(SettingsError, match="'lab' takes its key from LAB_KEY, which is not set"):
        await open_ring(settings_with(services, tmp_path), database, stack)


async def test_the_named_key_may_be_in_a_store_instead(
    services: Mapping[str, str], database: Database, tmp_path: Path, stack: AsyncExitStack
) -> None:
    environment = {
        **os.environ,
        "BAATCHEET_PROVIDERS": LAB,
        "BAATCHEET_SECRETS_FILE": str(tmp_path / ".env.secrets"),
    }
    for command, given in ((["init"], None), (["set", "lab"], b"sk-of-the-lab-0123456789\n")):
        done = subprocess.run(
            [Path(sys.executable).with_name("baatcheet"), "secrets", *command],
            cwd=tmp_path,
            env=environment,
            input=given,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    ring = await open_ring(settings_with(services, tmp_path), database, stack)
    assert [key.reveal() for key in ring.current("lab")] == ["sk-of-the-lab-0123456789"]


async def test_a_limit_that_does_not_exist_stops_the_start(
    services: Mapping[str, str], database: Database, tmp_path: Path, stack: AsyncExitStack
) -> None:
    settings = settings_with(
        services, tmp_path, LAB_KEY="sk-x", BAATCHEET_KEY_LIMITS='{"groq": {"requests_per_hour": 5}}'
    )
    with pytest.raises(
        SettingsError, match="BAATCHEET_KEY_LIMITS: groq has a limit called 'requests_per_hour'"
    ):
        await open_ring(settings, database, stack)


async def test_ocr_space_is_not_sent_a_key_without_tls(
    services: Mapping[str, str], database: Database, tmp_path: Path, stack: AsyncExitStack
) -> None:
    settings = settings_with(services, tmp_path, BAATCHEET_OCR_SPACE_URL="http://ocr.example.com/parse")
    async with client_session() as session:
        catalogue = build_catalogue(settings.providers, session)
        stack.push_async_callback(catalogue.close)
        with pytest.raises(SettingsError, match="BAATCHEET_OCR_SPACE_URL: is without TLS"):
            share(settings, database, catalogue, stack, cast("Router", None))
