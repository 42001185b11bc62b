"""FAKES of services elsewhere, on real sockets: OCR.space, and a provider with a model that sees and one that doesn't.

Neither reads anything: what they answer is said by the test.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Self

from aiohttp import web


class _Server:
    """An HTTP server of this loop, on a free port of loopback."""

    def __init__(self) -> None:
        self._runner: web.AppRunner | None = None
        self.url = ""

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=50_000_000)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()


class FakeOcrSpace(_Server):
    """Answers as OCR.space's `/parse/image` does: only to a key in the header, only to a multipart form."""

    KEY = "K80000000000001"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, Any]] = []
        self.words: list[tuple[str, int, int, int, int]] = [
            ("Hello", 10, 20, 80, 30),
            ("world", 100, 20, 90, 30),
        ]
        self.answer: tuple[int, str] | None = None  # in place of its usual one
        self.hang = False

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/parse/image", self._parse)]

    @property
    def address(self) -> str:
        return f"{self.url}/parse/image"

    async def _parse(self, request: web.Request) -> web.Response:
        if self.hang:
            await asyncio.sleep(3600)
        if request.headers.get("apikey") != self.KEY:
            return web.json_response("The API key is invalid", status=403)
        form = await request.post()
        if "base64Image" in form:  # which may stand for a file
            refused = {
                "OCRExitCode": 3,
                "IsErroredOnProcessing": True,
                "ErrorMessage": ["There is no text in it"],
            }
            return web.json_response(refused)
        file = form["file"]
        assert isinstance(file, web.FileField)
        fields = {name: value for name, value in form.items() if name != "file"}
        self.asked.append({**fields, "content": file.file.read(), "type": file.content_type})
        if self.answer is not None:
            return web.Response(text=self.answer[1], status=self.answer[0], content_type="application/json")
        words = [
            {"WordText": text, "Left": left, "Top": top, "Height": height, "Width": width}
            for text, left, top, width, height in self.words
        ]
        line = {
            "LineText": " ".join(text for text, *_ in self.words),
            "Words": words,
            "MaxHeight": 30,
            "MinTop": 20,
        }
        overlay = {"Lines": [line], "HasOverlay": True, "Message": None}
        parsed = {
            "TextOverlay": overlay,
            "TextOrientation": "0",
            "FileParseExitCode": 1,
            "ParsedText": f"{line['LineText']}\r\n",
            "ErrorMessage": "",
            "ErrorDetails": "",
        }
        return web.json_response(
            {
                "ParsedResults": [parsed],
                "OCRExitCode": 1,
                "IsErroredOnProcessing": False,
                "ProcessingTimeInMilliseconds": "250",
                "SearchablePDFURL": "",
            }
        )


class FakeModels(_Server):
    """Speaks OpenAI's protocol: `sees` takes pictures, as its list says, and `reads` takes text only."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[dict[str, Any]] = []
        self.reply = "Noted."
        self.status = 200

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/models", self._models), web.post("/v1/chat/completions", self._complete)]

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    async def _models(self, _: web.Request) -> web.Response:
        kinds: Mapping[str, list[str]] = {"sees": ["text", "image"], "reads": ["text"]}
        data = [
            {
                "id": name,
                "object": "model",
                "created": 1,
                "owned_by": "fake",
                "context_length": 100_000,
                "architecture": {"input_modalities": kind},
            }
            for name, kind in kinds.items()
        ]
        return web.json_response({"object": "list", "data": data})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.status != 200:
            error = {"message": "No.", "type": "server_error", "param": None, "code": None}
            return web.json_response({"error": error}, status=self.status)
        usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
        whole = {"id": "c1", "created": 1, "model": body["model"], "usage": usage}
        if not body.get("stream"):
            message = {"role": "assistant", "content": self.reply}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            return web.json_response({**whole, "object": "chat.completion", "choices": choices})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for delta, reason in (({"role": "assistant", "content": self.reply}, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = {**whole, "usage": None, "object": "chat.completion.chunk", "choices": [choice]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        last = {**whole, "object": "chat.completion.chunk", "choices": []}
        await response.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
        return response
