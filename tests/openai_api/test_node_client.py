"""The `openai` package for Node works unchanged with another base URL. What it does is in node/client.mjs."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Caller
from tests.scripted_provider import ScriptedProvider

FOLDER = Path(__file__).parent / "node"
OLDEST = 20  # the oldest release of Node that this version of the package supports
ENOUGH = 60.0  # seconds for the installation, and for one act

Act = Callable[..., Awaitable[Any]]


def _version(node: str) -> int:
    said = subprocess.run(
        [node, "--version"], capture_output=True, text=True, timeout=ENOUGH, check=True
    ).stdout
    return int(said.strip().removeprefix("v").partition(".")[0])


def _install(npm: str) -> None:
    """Make node_modules as package-lock.json says, unless it was made from that already.

    Raises OSError, subprocess.SubprocessError.
    """
    lock = FOLDER / "package-lock.json"
    made_from, wanted = FOLDER / "node_modules" / ".made-from", hashlib.sha256(lock.read_bytes()).hexdigest()
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # another test process may be at it
        if made_from.exists() and made_from.read_text() == wanted:
            return
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]
        subprocess.run(
            [npm, "ci", *quiet], cwd=FOLDER, capture_output=True, text=True, timeout=ENOUGH, check=True
        )
        made_from.write_text(wanted)


@pytest.fixture(scope="module")
def node() -> str:
    """The interpreter, with the package beside the script."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        pytest.skip("node and npm are not installed here")
    if (version := _version(found)) < OLDEST:
        pytest.skip(f"node {version} is too old for this version of the openai package, which needs {OLDEST}")
    try:
        _install(npm)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip() or error.stdout.strip()
        pytest.skip(f"npm could not install the openai package: {reason.splitlines()[-1]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm could not install the openai package: {error}")
    return found


@pytest.fixture
def act(node: str, alice: Caller) -> Act:
    """Run one act of the script, by its name and what it is given; the JSON that it prints."""
    assert alice.token is not None
    settings = {"OPENAI_BASE_URL": f"{alice.base_url}/v1", "OPENAI_API_KEY": alice.token}

    async def run(name: str, **given: Any) -> Any:
        process = await asyncio.create_subprocess_exec(
            node,
            "client.mjs",
            name,
            json.dumps(given),
            cwd=FOLDER,
            env={"PATH": os.environ["PATH"], **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), ENOUGH)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, errors.decode()
        return json.loads(output)

    return run


async def test_a_completion(act: Act) -> None:
    answer = await act("chat")
    assert answer["choices"][0]["message"]["content"] == "You said: hello from Node"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] > 0


async def test_a_stream_with_usage(act: Act) -> None:
    chunks = await act("stream")
    said = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]]
    assert "".join(said) == "You said: hello from Node"
    assert len([text for text in said if text]) > 1
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens"] > 0
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_the_streaming_helper_puts_a_completion_together(act: Act) -> None:
    answer = await act("streamHelper")
    assert (
        answer["heard"] == answer["final"]["choices"][0]["message"]["content"] == "You said: hello from Node"
    )


async def test_leaving_a_stream_stops_the_provider(act: Act, scripted_provider: ScriptedProvider) -> None:
    assert (await act("leave"))["aborted"] is True
    asked = [one for one in scripted_provider.chats if "never mind" in one.raw.decode()]
    assert await asked[-1].left()


async def test_tools_are_called_and_answered(act: Act) -> None:
    answer = await act("tools")
    assert answer["call"]["type"] == "function"
    assert answer["call"]["function"]["name"] == "adder"
    assert json.loads(answer["call"]["function"]["arguments"]) == {"a": 17, "b": 25}
    assert "42" in answer["final"]


async def test_streamed_tool_calls_are_put_together(act: Act) -> None:
    choice = await act("streamedTools")
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "adder"
    assert json.loads(call["function"]["arguments"]) == {"a": 17, "b": 25}


async def test_the_tool_runner_reaches_its_final_answer(act: Act) -> None:
    assert "42" in await act("runTools")


async def test_json_mode(act: Act) -> None:
    assert await act("json") == {"name": "scripted name"}


@pytest.mark.parametrize(
    ("model", "kind", "status"),
    [
        ("no-such-model", "NotFoundError", 404),
        ("scripted-400", "BadRequestError", 400),
        ("scripted-429", "InternalServerError", 503),
        ("scripted-500", "InternalServerError", 503),
    ],
)
@pytest.mark.parametrize(
    "more", [{}, {"stream": True}, {"conversation": "new"}], ids=["whole", "stream", "kept"]
)
async def test_errors_are_of_the_right_class(
    act: Act, model: str, kind: str, status: int, more: dict[str, Any]
) -> None:
    error = await act("error", model=model, **more)
    assert error["class"] == kind
    assert error["isApiError"]
    assert error["status"] == status
    assert error["type"]
    assert error["requestID"]
    if status == 503:
        assert int(error["retryAfter"]) > 0


async def test_a_wrong_key_is_an_authentication_error(act: Act) -> None:
    error = await act("error", model="scripted-echo", key="bc_wrong")
    assert (error["class"], error["status"], error["code"]) == ("AuthenticationError", 401, "invalid_api_key")


async def test_a_reply_that_is_cut_raises_in_the_stream(act: Act) -> None:
    error = await act("brokenStream")
    assert error["isApiError"]
    assert "openai" in error["message"]


async def test_models_are_listed_and_found(act: Act) -> None:
    answer = await act("models")
    assert "openai/scripted-echo" in answer["ids"]
    assert answer["one"]["object"] == "model"


async def test_a_conversation_by_header_remembers(act: Act, alice: Caller) -> None:
    answer = await act("conversation")
    assert answer["requestId"]
    page = (await alice.get(f"/api/v1/conversations/{answer['id']}/messages")).json()
    said = ["I am Noor", answer["answers"][0], "who?", answer["answers"][1]]
    assert [message["content"] for message in page["data"]] == said


async def test_embeddings_pass_through(act: Act) -> None:
    answer = await act("embeddings")
    one, two = (item["embedding"] for item in answer["data"])
    assert len(one) == len(two) > 1
    assert all(isinstance(number, float | int) for number in one)
    assert one != two
