"""`baatcheet openapi`."""

import json

from baatcheet.entrypoints.api import create_app
from baatcheet.platform.settings import Settings


def openapi() -> None:
    """Print the OpenAPI document of the REST surface."""
    print(json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False))
