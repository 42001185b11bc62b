"""schemathesis walks the OpenAPI document: no 500, and no answer that the document does not declare."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from baatcheet.platform.blobs import FolderBlobs
from baatcheet.platform.database import Database
from tests.api.things import files_of, one_of_each
from tests.conftest import ROOT, Caller, NewCaller, RunningServer

SECONDS = 200
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
OWN = "explorer"

_THINGS = (
    "INSERT INTO job_queues (name) VALUES (:name)",
    (
        "INSERT INTO job_schedules (name, kind, cron, paused, next_at) "
        "VALUES (:name, :name, '0 0 1 1 *', true, '2100-01-01Z')"
    ),
)
_LEFT = (
    "DELETE FROM job_queues WHERE name = :name",
    "DELETE FROM job_schedules WHERE name = :name",
    "DELETE FROM users WHERE id = :user",
)


@asynccontextmanager
async def own_things(database: Database, user: UUID) -> AsyncIterator[None]:
    """A queue and a schedule that may be steered. In the end they are gone, and the user with all that is theirs."""
    async with database.system() as session:
        for statement in _THINGS:
            await session.execute(text(statement), {"name": OWN})
    try:
        yield
    finally:
        async with database.system() as session:
            for statement in _LEFT:
                await session.execute(text(statement), {"name": OWN, "user": user})


@pytest.mark.timeout(SECONDS * 5)
async def test_schemathesis_finds_no_500_and_nothing_undeclared(
    server: RunningServer, admin: Caller, new_caller: NewCaller, database: Database, tmp_path: Path
) -> None:
    # An administrator, so that no operation is out of reach; not the one that other tests need.
    explorer = await new_caller("explorer", role="admin")
    kept = [
        (await caller.get("/api/v1/me")).json()[what]["id"]
        for caller in (explorer, admin)
        for what in ("user", "token")
    ]
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file=/dev/null",
        "run",
        f"{server.url}/api/openapi.json",
        "--header",
        f"Authorization: Bearer {explorer.token}",
        "--checks",
        ",".join(CHECKS),
        "--phases",
        "examples,coverage,fuzzing,stateful",
        "--max-examples",
        "40",
        "--max-time",
        str(SECONDS),
        "--continue-on-failure",
        "--generation-database",
        "none",
        "--seed",
        "31337",
        "--request-timeout",
        "20",
        "--suppress-health-check",
        "all",
        "--warnings",
        "off",
        "--no-color",
    ]
    async with own_things(database, explorer.user_id):
        things = await one_of_each(explorer, database, FolderBlobs(files_of(server)))
        del things["user_id"]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={
                **os.environ,
                "SCHEMATHESIS_HOOKS": "tests.api.explorer_hooks",
                "PYTHONPATH": str(ROOT),
                "EXPLORER_KEEPS": ",".join(kept),
                "EXPLORER_OWNS": OWN,
                "EXPLORER_THINGS": json.dumps(things),
            },
            capture_output=True,
            text=True,
            timeout=SECONDS * 4,
            check=False,
        )
        (tmp_path / "report.txt").write_text(done.stdout)
        for caller in (explorer, admin):
            assert (await caller.get("/api/v1/users")).status_code == 200, "it locked somebody out"
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-4000:]}"
