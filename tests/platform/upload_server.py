"""The API process as it is, with one more address that takes an upload: `python -m tests.platform.upload_server FD`."""

import socket
import sys
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from baatcheet.auth.access import Writer
from baatcheet.entrypoints.api import create_app, server
from baatcheet.platform import logging
from baatcheet.platform.blobs import Blobs, build_blobs
from baatcheet.platform.settings import load
from baatcheet.platform.telemetry import Metrics, Telemetry
from baatcheet.platform.uploads import receive_upload

PATH = "/api/v1/test-uploads"


def main() -> None:
    settings = load(dotenv=None)
    logging.configure(settings.telemetry)
    app = create_app(settings)
    blobs = build_blobs(settings.storage, Path("data"))

    @app.post(PATH)
    async def upload(
        who: Writer, request: Request, store: Annotated[Blobs, Depends(lambda: blobs)]
    ) -> dict[str, int | str]:
        async with store.scratch() as folder:
            received = await receive_upload(request, folder, 60_000_000)
            await store.put(f"uploads/{who.user_id}/{received.sha256}", received.path)
        return {"size": received.size, "sha256": received.sha256}

    inherited = socket.socket(fileno=int(sys.argv[1]))
    server(settings, app, Telemetry(Metrics())).run(sockets=[inherited])


if __name__ == "__main__":
    main()
