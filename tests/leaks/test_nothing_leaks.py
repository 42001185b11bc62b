"""Everything that can fail is made to fail, and no part of any key is found in anything that comes out.

What comes out: the logs of both processes at `debug`, every answer to a client, traces, webhooks, what commands print,
each table of the database and what it is doing, the cache, the files that are kept, exports, and the console's pages.
"""

import io
import json
import signal
import wave
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image, ImageDraw

from tests.leaks.canaries import Search
from tests.leaks.deployment import (
    CHATTING,
    Client,
    Deployment,
    Evidence,
    eventually,
    plant,
    walk_console,
    walk_document,
)
from tests.leaks.echoing import BODIES, BROKEN, GONE, SILENT, STREAMS, Manner, manners

# Statuses that count against a key, and how each tells it.
REFUSALS: Final = {
    401: "plain",
    402: "base64 of the header",
    403: "split over two fields",
    429: "first half",
    500: "at the limit",
    503: "URL-encoded",
}
pytestmark = pytest.mark.timeout(600)  # seconds, on a machine that does much else

COMMANDS: Final = (
    "doctor",
    "doctor --json",
    "keys list",
    "keys check",
    "secrets list",
    "settings",
    "routes list",
)
_ENDED: Final = {"completed", "failed", "cancelled", "dead"}


@pytest.fixture(scope="module")
def evidence(services: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """All that a deployment has let out while everything failed."""
    keys = plant()
    evidence = Evidence([one for several in keys.values() for one in several])
    deployment = Deployment(tmp_path_factory.mktemp("leaks"), evidence, keys)
    with deployment.running(services):
        drive(deployment)
        deployment.gather()
    evidence.told = deployment.provider.told
    evidence.sent = deployment.provider.asked
    return evidence


def drive(deployment: Deployment) -> None:
    """Make everything fail that can."""
    for path, events in (("/ok", ["*"]), ("/status/500", ["key.*"])):
        body = {"url": deployment.receiver.url(path), "events": events}
        assert deployment.admin.post("/api/v1/webhooks", json=body).status_code == 201
    answers_that_fail(deployment)
    keys_that_are_refused(deployment)
    probes_that_fail(deployment)
    silence(deployment)
    speech_and_pictures_that_fail(deployment)
    stores_that_fail(deployment)
    rotations_that_fail(deployment)
    exports(deployment)
    look_everywhere(deployment)
    stop(deployment)


def answers_that_fail(deployment: Deployment) -> None:
    """Each wrong answer, to each way of asking, by the keys of each store."""
    # A provider with one key only is asked once, so that its key is not taken to fail for good.
    requests = [
        partial(deployment.chat, "openai"),
        partial(deployment.embed, "openai"),
        partial(speak, deployment),
        partial(deployment.chat, "lab_aws", streamed=True),
        partial(deployment.complete, "lab_aws"),
        partial(deployment.chat, "lab_file"),
        partial(deployment.complete, "lab_file", streamed=True),
        partial(deployment.complete, "lab_env", streamed=True),
        partial(deployment.chat, "lab_inline"),
    ]
    for manner in manners():
        with deployment.manner(manner):
            deployment.together(*requests)
        if not isinstance(manner, tuple) or manner[1] == "Google's list":
            deployment.restore()


def keys_that_are_refused(deployment: Deployment) -> None:
    """Keys are quarantined and rested with what the provider said, and administrators are told."""
    for status, way in REFUSALS.items():
        with deployment.manner((status, way)):
            deployment.together(
                *(partial(deployment.chat, provider) for provider in CHATTING),
                partial(deployment.complete, "auto", streamed=True),
                partial(deployment.complete, "fast"),
            )
        assert deployment.chat("lab_inline").status_code in {200, 429, 503}
        deployment.admin.get("/api/v1/keys")
        deployment.admin.get("/v1/models")
        if status == 403:
            deployment.commands(*COMMANDS)
        deployment.restore()


def probes_that_fail(deployment: Deployment) -> None:
    """A provider's cheapest call, its list of models, tells the key as well."""
    keys = deployment.admin.get("/api/v1/keys", params={"limit": 100}).json()["data"]
    firsts = {one["provider"]: one["id"] for one in keys}
    telling: list[Manner] = [(401, "base64"), (404, "as a name"), *((500, way) for way in BODIES)]
    for manner in [*telling, *BROKEN]:
        with deployment.manner(manner):
            deployment.together(
                *(
                    partial(deployment.admin.post, f"/api/v1/keys/{firsts[provider]}/check")
                    for provider in ("openai", "lab_aws", "lab_file", "lab_env")
                )
            )
    deployment.restore()


def silence(deployment: Deployment) -> None:
    for manner in (SILENT, GONE):
        with deployment.manner(manner):
            deployment.together(
                partial(deployment.chat, "openai"),
                partial(deployment.complete, "lab_file", streamed=True),
                partial(deployment.embed, "lab_env"),
                partial(speak, deployment),
            )
    deployment.restore()


def speak(deployment: Deployment) -> Any:
    files = {"file": ("said.wav", sound())}
    return deployment.admin.post("/v1/audio/transcriptions", files=files, data={"model": "whisper-1"})


def speech_and_pictures_that_fail(deployment: Deployment) -> None:
    """Jobs that fail: what a worker has heard from a provider is in the job, its events and its failures."""
    admin = deployment.admin

    def fail(**files: tuple[str, bytes]) -> None:
        paths = {"audio": "/api/v1/audio", "picture": "/api/v1/attachments"}
        made = [admin.post(paths[kind], files={"file": file}) for kind, file in files.items()]
        for answer in made:
            assert answer.status_code == 202, answer.text
            eventually(partial(has_failed, deployment, answer.json()["job"]["id"]), "the job has failed", 60)

    # First what OCR.space's words are kept of, and last what its keys are quarantined for.
    for way in ("OCR.space's", "in quotes"):
        with deployment.manner((200, way)):
            fail(picture=("page.png", picture(way)))
    failing: list[Manner] = [(403, "a string alone"), (400, "plain"), (401, "split over two fields")]
    for manner in [*failing, "in malformed JSON"]:
        with deployment.manner(manner):
            fail(audio=("said.wav", sound()), picture=("page.png", picture(str(manner))))
        deployment.restore()


def has_failed(deployment: Deployment, job: str) -> bool:
    told = deployment.admin.get(f"/api/v1/jobs/{job}").json()
    return bool(told["failures"]) or told["status"] in _ENDED


def stores_that_fail(deployment: Deployment) -> None:
    """Each store on the network is down, hangs, and fails with a key in its words; then all are malformed."""
    spoiled = [one.text for one in deployment.keys["spoiled"]]
    current = [one.text for one in deployment.keys["openai"]]
    for key in spoiled[:1] + current[:1]:
        vault = json.dumps({"errors": [f"1 error occurred:\n\t* no handler for {key}"]}).encode()
        aws = json.dumps({"__type": "InvalidRequestException", "Message": f"bad {key}"}).encode()
        for status in ("400 Bad Request", "500 Internal Server Error"):
            with failing_stores(
                deployment,
                ("vault", "application/json", vault),
                ("aws", "application/x-amz-json-1.1", aws),
                status=status,
            ):
                pass
    shape = json.dumps(
        {"data": {"data": {"openai": {current[0]: current[1]}}, "metadata": {"version": current[2]}}}
    )
    with failing_stores(
        deployment,
        ("vault", "application/json", shape.encode()),
        ("aws", "application/x-amz-json-1.1", json.dumps({"SecretString": {spoiled[1]: 1}}).encode()),
        status="200 OK",
    ):
        deployment.commands("keys list", "keys check")
        failing = deployment.admin.post("/api/v1/keys/refresh").json()["failing"]
        assert {"aws", "vault"} <= set(failing), failing
    for name in ("shut", "hang"):
        failed = deployment.logged("keys.store_failed")
        for gate in deployment.gates.values():
            deployment.loop.run(getattr(gate, name)())
        eventually(partial(has_logged, deployment, "keys.store_failed", failed + 4), "both stores fail")
        assert deployment.chat("openai").status_code == 200
        assert deployment.chat("lab_aws", streamed=True).status_code == 200
        if name == "hang":
            deployment.admin.post("/api/v1/keys/rotations", json={"provider": "lab_aws"})
        open_gates(deployment)
    malformed(deployment)


def has_logged(deployment: Deployment, event: str, count: int) -> bool:
    return deployment.logged(event) >= count


class failing_stores:  # noqa: N801 - read as a phrase
    """Within the block both stores on the network answer so, and both processes have seen it."""

    def __init__(self, deployment: Deployment, *answers: tuple[str, str, bytes], status: str) -> None:
        self._deployment, self._answers, self._status = deployment, answers, status

    def __enter__(self) -> None:
        deployment = self._deployment
        failed = deployment.logged("keys.store_failed")
        for name, kind, body in self._answers:
            deployment.loop.run(deployment.gates[name].answer(self._status, kind, body))
        eventually(
            lambda: deployment.logged("keys.store_failed") >= failed + 4, "both stores fail in both processes"
        )

    def __exit__(self, *_: object) -> None:
        open_gates(self._deployment)


def open_gates(deployment: Deployment) -> None:
    answered = deployment.logged("keys.store_answers")
    for gate in deployment.gates.values():
        deployment.loop.run(gate.open())
    eventually(lambda: deployment.logged("keys.store_answers") >= answered + 4, "both stores answer again")


def malformed(deployment: Deployment) -> None:
    """Somebody has written into every store what is no key, or no file: with a key in it."""
    spoiled = [one.text for one in deployment.keys["spoiled"]]
    good = deployment.secrets_file.read_text()
    document = deployment.vault.document("secret/data/baatcheet/api-keys")
    failed = deployment.logged("keys.store_failed")
    deployment.write_vault({"openai": {spoiled[0]: [spoiled[1]]}})
    deployment.write_aws(f'{{"keys": ["{spoiled[2]}", ')
    deployment.secrets_file.write_text(
        good + f'LAB_FILE_API_KEY_8="encrypted:{spoiled[3]}"\nthis is no line {spoiled[0]}\n'
    )
    eventually(
        lambda: deployment.logged("keys.store_failed") >= failed + 6, "all stores are seen to be malformed"
    )
    for provider in CHATTING:
        assert deployment.chat(provider).status_code == 200
    for provider in ("openai", "lab_aws", "lab_file"):
        deployment.admin.post("/api/v1/keys/rotations", json={"provider": provider})
    # A command is a process that starts: it refuses, and says why.
    deployment.commands(*COMMANDS)
    answered = deployment.logged("keys.store_answers")
    deployment.write_vault(document)
    deployment.write_aws(json.dumps({"keys": [one.text for one in deployment.keys["lab_aws"]]}))
    deployment.secrets_file.write_text(good)
    eventually(lambda: deployment.logged("keys.store_answers") >= answered + 6, "all stores answer again")
    deployment.restore()


def rotations_that_fail(deployment: Deployment) -> None:
    """New keys that are refused; a store that fails in the middle; old ones that can't be revoked."""
    keys, provider, admin = deployment.keys, deployment.provider, deployment.admin
    staged = [one.text for one in keys["staged"]]
    provider.refused.update(staged)
    done = deployment.cli("keys", "stage", "lab_file", typed="\n".join(staged))
    assert done.returncode == 0, done.stderr
    rolled_back = rotation(deployment, "lab_file")
    assert rolled_back["outcome"] in {"failed", "rolled_back"}, rolled_back
    # The admin API gives keys; Vault fails just then, and tells one of them.
    given = [one.text for one in keys["given"]]
    provider.new_keys = list(given)
    body = json.dumps({"errors": [f"permission denied on {given[0]}"]}).encode()

    def spoil() -> None:
        deployment.vault.asked.clear()
        deployment.vault.sealed = True

    provider.on_new_key = spoil
    made = admin.post("/api/v1/keys/rotations", json={"provider": "openai"})
    assert made.status_code == 202, made.text
    eventually(lambda: len(provider.new_keys) < len(given), "a new key was given")
    deployment.loop.run(deployment.gates["vault"].answer("403 Forbidden", "application/json", body))
    eventually(
        lambda: (look(deployment, made.json()["id"]))["error"] is not None, "the rotation is in trouble"
    )
    deployment.commands(*COMMANDS)
    provider.on_new_key = lambda: None
    deployment.vault.sealed = False
    deployment.loop.run(deployment.gates["vault"].open())
    deployment.evidence.rotations.append(look(deployment, made.json()["id"]))


def look(deployment: Deployment, id_: str) -> dict[str, Any]:
    told: dict[str, Any] = deployment.admin.get(f"/api/v1/keys/rotations/{id_}").json()
    return told


def rotation(deployment: Deployment, provider: str) -> dict[str, Any]:
    made = deployment.admin.post("/api/v1/keys/rotations", json={"provider": provider})
    assert made.status_code == 202, made.text
    id_ = made.json()["id"]
    eventually(lambda: look(deployment, id_)["outcome"] is not None, f"the rotation of {provider} ends", 60)
    deployment.evidence.rotations.append(look(deployment, id_))
    return deployment.evidence.rotations[-1]


def exports(deployment: Deployment) -> None:
    """A conversation that has failed in every form, and all that the administrator has."""
    admin = deployment.admin
    turns = admin.get("/api/v1/turns", params={"limit": 100}).json()["data"]
    conversation = next(
        turn["conversation_id"] for turn in turns if turn["error"] and turn["conversation_id"]
    )
    made = [admin.post("/api/v1/exports", json={"files": True})]
    made += [
        admin.post(f"/api/v1/conversations/{conversation}/exports", json={"format": form})
        for form in ("pdf", "json", "md", "txt")
    ]
    for answer in made:
        assert answer.status_code == 202, answer.text
        id_ = answer.json()["export"]["id"]
        path = f"/api/v1/exports/{id_}"
        eventually(partial(is_made, admin, path), "the export is there", 60)
        assert admin.get(f"{path}/download", follow_redirects=True).status_code == 200


def is_made(admin: Client, path: str) -> bool:
    return bool(admin.get(path).json()["status"] == "completed")


def look_everywhere(deployment: Deployment) -> None:
    """Everything that an administrator can look at."""
    admin = deployment.admin
    deployment.note_processes()
    conversations = [row["id"] for row in admin.get("/api/v1/conversations?limit=10").json()["data"]]
    messages = [
        row["id"]
        for one in conversations
        for row in admin.get(f"/api/v1/conversations/{one}/messages").json()["data"]
    ]
    asked = walk_document(admin, {"message_id": messages[:20], "model": ["lab_file/talks", "nobody/knows"]})
    for path in ("/api/v1/keys/{key_id}", "/api/v1/audit", "/api/v1/jobs/{job_id}", "/metrics", "/v1/models"):
        assert path in asked, path
    admin.get("/api/v1/events?after=0&seconds=0")
    pages = walk_console(deployment.api.url, deployment.evidence)
    assert any(page.startswith("/console/keys") for page in pages), pages
    assert any(page.startswith("/console/jobs/") for page in pages), pages


def has_stacks(log: Path, count: int) -> bool:
    return log.read_bytes().count(b"(most recent call first)") >= count


def stop(deployment: Deployment) -> None:
    """Say where every thread is, and end, with requests under way."""
    dumps = [log.read_bytes().count(b"(most recent call first)") for log in deployment.logs]
    for process in (deployment.api, deployment.worker):
        process.signal(signal.SIGUSR1)
    for log, before in zip(deployment.logs, dumps, strict=True):
        eventually(
            partial(has_stacks, log, before + 1),
            f"{log.name} has the stacks of all threads",
        )
    assert deployment.chat("openai").status_code == 200  # it goes on
    with ThreadPoolExecutor(1) as aside, deployment.manner(SILENT):
        under_way = aside.submit(deployment.complete, "lab_file", streamed=True)
        eventually(lambda: deployment.provider.told[SILENT] > 0, "a request is under way")
        deployment.api.signal(signal.SIGTERM)
        deployment.worker.signal(signal.SIGTERM)
        under_way.result()
    assert deployment.api.wait() == 0
    assert deployment.worker.wait() == 0


def sound() -> bytes:
    """A second of nearly nothing."""
    made = io.BytesIO()
    with wave.open(made, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(b"\x10\x00\xf0\xff" * 8_000)
    return made.getvalue()


def picture(words: str) -> bytes:
    made = io.BytesIO()
    image = Image.new("RGB", (400, 120), "white")
    ImageDraw.Draw(image).text((20, 40), words, fill="black")
    image.save(made, "PNG")
    return made.getvalue()


def test_nothing_that_came_out_holds_any_part_of_a_key(evidence: Evidence) -> None:
    leaks = Search(evidence.canaries).everything(evidence.documents)
    assert not leaks, "\n".join(str(one) for one in leaks[:80])


def test_every_key_that_providers_are_asked_with_was_sent(evidence: Evidence) -> None:
    """Otherwise nothing was at stake."""
    meant = ("vault/openai", "aws/", "file/", "environment/lab_env", "environment/ocr", "environment/openai", "staged",
             "BAATCHEET_PROVIDERS")  # fmt: skip
    unsent = [
        one.name for one in evidence.canaries if one.name.startswith(meant) and not evidence.sent[one.text]
    ]
    assert unsent == []


def test_every_way_of_telling_a_key_was_gone(evidence: Evidence) -> None:
    told = {f"400 {body}" for body in BODIES} | set(BROKEN) | set(STREAMS) | {SILENT, GONE}
    told |= {f"{status} {way}" for status, way in REFUSALS.items()}
    assert told - set(evidence.told) == set()


def test_everything_that_is_searched_is_there(evidence: Evidence) -> None:
    """An empty heap holds no leaks either."""
    logs = evidence.of(" api.log") + evidence.of(" worker.log")
    assert all(b'"level":"debug"' in log or b'"level":"info"' in log for log in logs)
    assert b'"event":"keys.store_failed"' in logs[0]
    assert b"most recent call first" in logs[0]
    assert b"most recent call first" in logs[1]
    assert any(b"gen_ai" in trace for trace in evidence.of("traces"))
    assert any(b"key.quarantined" in hook for hook in evidence.of("the webhook /ok"))
    assert any(b"key.rotation_failed" in hook for hook in evidence.of("the webhook /ok"))
    tables = {
        name.split("public.")[-1]: data for name, data in evidence.documents.items() if "the table" in name
    }
    for table in (
        "provider_keys",
        "audit_entries",
        "key_rotations",
        "turns",
        "jobs",
        "events",
        "notifications",
    ):
        assert tables[table], table
    assert b"[redacted]" in tables["provider_keys"] + tables["turns"] + tables["audit_entries"]
    assert b"OCR.space could not read it: apikey [redacted]" in tables["attachments"] + tables["jobs"]
    assert (
        b"OCR.space refuses the key: The API key [redacted]"
        in tables["provider_keys"] + tables["audit_entries"]
    )
    assert evidence.of("the cache")
    assert evidence.of("pg_stat_activity")
    assert any(b"lab_file" in printed for printed in evidence.of("baatcheet keys list"))
    assert any(data.startswith(b"%PDF-") for data in evidence.documents.values())
    assert any(data.startswith(b"PK\x03\x04") for data in evidence.documents.values())
