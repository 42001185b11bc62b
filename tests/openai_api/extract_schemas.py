"""Make openai-schemas.json: what OpenAI's own specification says of the answers that BaatCheet gives under /v1.

    python -m tests.openai_api.extract_schemas PATH/TO/openapi.json

The source is the OpenAPI document of OpenAI's API (https://github.com/openai/openai-openapi, MIT licence) as JSON.
Taken are the schemas in ANSWERS and all that they refer to, word for word but for two things: prose and vendor
extensions are left out, and `nullable`, which that document still writes and JSON Schema does not know, is written as
a choice between the schema and null.
"""

import argparse
import json
from pathlib import Path
from typing import Any

ANSWERS = (
    "CreateChatCompletionResponse",
    "CreateChatCompletionStreamResponse",
    "CreateEmbeddingResponse",
    "CreateTranscriptionResponseJson",
    "CreateTranscriptionResponseVerboseJson",
    "ErrorResponse",
    "ListModelsResponse",
    "Model",
)
EXTRACTED = Path(__file__).parent / "openai-schemas.json"

_PREFIX = "#/components/schemas/"
_PROSE = {"title", "description", "example", "examples", "deprecated", "format"}
_NAMED = {"properties", "$defs"}  # their members are names, not keywords


def extract(document: dict[str, Any]) -> dict[str, Any]:
    """The document's answers as one JSON document, each schema under `components.schemas`."""
    every: dict[str, Any] = document["components"]["schemas"]
    taken: dict[str, Any] = {}
    wanted = list(ANSWERS)
    while wanted:
        name = wanted.pop()
        if name not in taken:
            taken[name] = _rewritten(every[name])
            wanted.extend(sorted(_references(taken[name])))
    info = document["info"]
    return {
        "$comment": f"From {info['title']} {info['version']} (https://github.com/openai/openai-openapi), "
        f"{info['license']['name']} licence, Copyright (c) OpenAI. Made by extract_schemas.py.",
        "components": {"schemas": dict(sorted(taken.items()))},
    }


def _rewritten(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_rewritten(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        keyword: {name: _rewritten(one) for name, one in value.items()}
        if keyword in _NAMED
        else _rewritten(value)
        for keyword, value in schema.items()
        if keyword not in _PROSE and keyword != "nullable" and not keyword.startswith("x-")
    }
    return {"anyOf": [kept, {"type": "null"}]} if schema.get("nullable") is True else kept


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_references, schema))
    if not isinstance(schema, dict):
        return set()
    found = set().union(*map(_references, schema.values()))
    reference = schema.get("$ref")
    return found | {reference.removeprefix(_PREFIX)} if isinstance(reference, str) else found


def main() -> None:
    parser = argparse.ArgumentParser(description="Make openai-schemas.json from OpenAI's OpenAPI document.")
    parser.add_argument("document", type=Path)
    document = json.loads(parser.parse_args().document.read_bytes())
    EXTRACTED.write_text(json.dumps(extract(document), indent=1) + "\n")


if __name__ == "__main__":
    main()
