"""The places where keys are kept, for the suites of the stores."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from moto.server import ThreadedMotoServer

from tests.keys.stores.bench import StoreBench
from tests.keys.stores.benches_of_files import EnvironmentBench, FileBench
from tests.keys.stores.benches_of_services import AwsBench, VaultBench
from tests.keys.stores.fake_vault import FakeVault


@pytest.fixture(scope="session")
def moto_server() -> Iterator[tuple[str, int]]:
    """AWS, as far as these tests need it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def fake_vault() -> Iterator[FakeVault]:
    with FakeVault() as vault:
        yield vault


@pytest_asyncio.fixture
async def aws(aws_credentials: None, moto_server: tuple[str, int]) -> AsyncIterator[AwsBench]:
    async with AwsBench(*moto_server) as bench:
        yield bench


@pytest_asyncio.fixture
async def vault(fake_vault: FakeVault) -> AsyncIterator[VaultBench]:
    async with VaultBench(fake_vault) as bench:
        yield bench


@pytest_asyncio.fixture
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreBench]:
    """The place that the suite is run for: its name is the parameter."""
    async with AsyncExitStack() as stack:
        match request.param:
            case "environment":
                yield EnvironmentBench(tmp_path)
            case "file":
                yield FileBench(tmp_path)
            case "aws":
                request.getfixturevalue("aws_credentials")
                server = request.getfixturevalue("moto_server")
                yield await stack.enter_async_context(AwsBench(*server))
            case "vault":
                yield await stack.enter_async_context(VaultBench(request.getfixturevalue("fake_vault")))
