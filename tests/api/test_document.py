"""The OpenAPI document says what there is, whole and consistent; the page shows it without anybody's help."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/api/openapi.json")).json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield method, path, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(found := value.get("$ref"), str):
            yield found
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_operation_says_what_it_is(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    ids = [operation.get("operationId") for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for method, path, operation in operations(document):
        assert operation["operationId"], path
        assert operation["summary"], path
        assert operation["tags"], path
        if path.startswith(("/api/", "/v1/")):
            assert operation["security"], (method, path)
            assert {"401", "403", "429", "500", "503"} <= set(operation["responses"]), (method, path)


def test_every_reference_and_every_link_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    known = {operation["operationId"]: operation for _, _, operation in operations(document)}
    schemes = document["components"]["securitySchemes"]
    for _, path, operation in operations(document):
        for wanted in operation.get("security", []):
            assert set(wanted) <= set(schemes), path
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                target = known[link["operationId"]]
                named = {parameter["name"] for parameter in target.get("parameters", [])}
                assert set(link["parameters"]) <= named, (path, link)


def test_every_creation_takes_a_key_and_leads_on(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        answers = operation["responses"]
        accepted = "location" in answers.get("202", {}).get("headers", {})
        created = answers.get("201") or (answers["202"] if accepted else None)
        if method == "post" and created is not None:
            assert created["links"], path
            assert "location" in created["headers"], path
            assert "Idempotency-Key" in {one["name"] for one in operation["parameters"]}, path


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for name, schema in document["components"]["schemas"].items():
        examples = list(schema.get("examples", []))
        if "example" in schema:
            examples.append(schema["example"])
        for example in examples:
            whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
            Draft202012Validator(whole).validate(example)
            checked += 1
    assert checked > 5


class Outside(HTMLParser):
    """What a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object"} or any(
            name.startswith("on") for name, _ in attrs
        ):
            self.loads.append(tag)


async def test_the_page_lists_every_operation_and_loads_nothing(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    answer = await client.get("/api/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    outside = Outside()
    outside.feed(answer.text)
    assert outside.loads == []
    for method, path, _ in operations(document):
        assert re.search(rf">{method.upper()}</span> <code>{re.escape(path)}</code>", answer.text), path
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"]


async def test_an_address_with_nothing_at_it_is_a_problem(client: httpx.AsyncClient) -> None:
    for path in ("/nothing", "/api", "/api/nothing"):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_wrong_method_is_told_the_right_ones(alice: httpx.AsyncClient) -> None:
    answer = await alice.put("/api/v1/projects/0190f3a2-7c1e-7d4b-9a51-3f0c2b8e6d10")
    assert answer.status_code == 405
    assert {one.strip() for one in answer.headers["allow"].split(",")} >= {"GET", "PATCH", "DELETE"}
    assert answer.headers["content-type"] == "application/problem+json"
