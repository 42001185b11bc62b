"""What our documents tell a reader to type works, against a real server.

Blocks marked `bash` and `python` are run, in order: those of `bash` share one shell, so that a variable that
one sets is there in the next; each of `python` is a program of its own. Anything that needs another machine,
another provider or root is marked `sh`, `ini` and so on, and is not run.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import Caller, RunningServer
from tests.docs.markdown import Snippet, documents, name_of, snippets

WRITTEN_ADDRESS = "http://127.0.0.1:8080"
# What a document has done in the background is done while its reader waits.
pytestmark = pytest.mark.usefixtures("worker")

PATIENCE = 60.0  # seconds for one document's commands, or for one program

# `curl` must fail where the server refuses, and a pipe where any of its parts does.
SHELL = """
set -euo pipefail
curl() { command curl --fail "$@"; }
"""


def _run_in(document: Path, language: str) -> list[Snippet]:
    return [snippet for snippet in snippets(document) if snippet.language == language]


COMMANDS = [document for document in documents() if _run_in(document, "bash")]
PROGRAMS = [
    pytest.param(snippet, id=f"{name_of(document)}:{snippet.line}")
    for document in documents()
    for snippet in _run_in(document, "python")
]


async def _run(
    program: list[str], text: str, server: RunningServer, who: Caller, folder: Path
) -> tuple[int, str]:
    """The exit status of `program`, given `text`, and what it said."""
    assert who.token is not None
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("BAATCHEET_", "OPENAI_"))
    }
    here = str(Path(sys.executable).parent)
    environment = clean | {"TOKEN": who.token, "PATH": f"{here}{os.pathsep}{clean.get('PATH', os.defpath)}"}
    process = await asyncio.create_subprocess_exec(
        *program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        cwd=folder,
    )
    try:
        said, _ = await asyncio.wait_for(
            process.communicate(text.replace(WRITTEN_ADDRESS, server.url).encode()), PATIENCE
        )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("document", COMMANDS, ids=name_of)
async def test_the_commands_of_a_document_work(
    document: Path, server: RunningServer, alice: Caller, tmp_path: Path
) -> None:
    # Their reader has talked with the server before.
    assert (await alice.post("/api/v1/chat/completions", json={"message": "Hello"})).status_code == 200
    text = SHELL + "\n".join(snippet.text for snippet in _run_in(document, "bash"))
    status, said = await _run(["bash", "-s"], text, server, alice, tmp_path)
    assert status == 0, said
    assert said.strip(), "a reader would see nothing"


@pytest.mark.parametrize("snippet", PROGRAMS)
async def test_the_programs_of_a_document_work(
    snippet: Snippet, server: RunningServer, alice: Caller, tmp_path: Path
) -> None:
    status, said = await _run([sys.executable, "-"], snippet.text, server, alice, tmp_path)
    assert status == 0, said
    assert said.strip(), "a reader would see nothing"


def test_the_readme_shows_commands_and_programs() -> None:
    readme = documents()[0]
    assert len(_run_in(readme, "bash")) >= 3
    assert len(_run_in(readme, "python")) >= 2


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_program_in_a_document_is_python(document: Path) -> None:
    for snippet in _run_in(document, "python"):
        compile(snippet.text, f"{name_of(document)}:{snippet.line}", "exec")
