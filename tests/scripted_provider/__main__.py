"""`python -m tests.scripted_provider --port 9000`: the fake provider in a process of its own."""

import argparse
import socket

import uvicorn

from .server import Application, configure
from .steps import PRESETS


def main() -> None:
    parser = argparse.ArgumentParser(description="A FAKE model provider that speaks the OpenAI protocol.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--default", choices=sorted(PRESETS), default="scripted", help="what models of no preset do"
    )
    parser.add_argument("--models", default="", help="names to list and serve, comma-separated")
    parser.add_argument("--api-key", help="the only key that is accepted")
    parser.add_argument("--keep", type=int, default=0, help="requests to remember")
    given = parser.parse_args()
    models = [name for name in given.models.split(",") if name]
    app = Application(PRESETS[given.default], models, given.api_key, given.keep)
    listener = socket.create_server(("127.0.0.1", given.port), backlog=2048)
    print(  # noqa: T201 - whoever started it reads the address here
        f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True
    )
    uvicorn.Server(configure(app)).run(sockets=[listener])


if __name__ == "__main__":
    main()
