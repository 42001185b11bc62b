"""LangChain's standard tests of a chat model, through `langchain-openai` against a real server.

The suite downloads a picture, a document and a recording for its multimodal tests. Here these are small files made
on the spot, each with a label inside, so nothing is fetched and what the provider receives can be recognised.
"""

import base64
import io
import struct
import wave
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests, chat_models
from pydantic import SecretStr

from tests.chat.conftest import Upstream
from tests.conftest import Caller

UsageDetail = Literal[
    "audio_input", "audio_output", "reasoning_output", "cache_read_input", "cache_creation_input"
]
LABEL = "made for the tests of BaatCheet"
MODEL = "scripted-echo"


def picture(width: int = 16, height: int = 8) -> bytes:
    """A PNG of one colour whose title is LABEL."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x20\x80\x60" * width) * height
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            part(b"tEXt", b"Title\0" + LABEL.encode()),
            part(b"IDAT", zlib.compress(rows)),
            part(b"IEND", b""),
        )
    )


def document() -> bytes:
    """A PDF of one page that says LABEL."""
    fonts = "<</Font <</F1 <</Type /Font /Subtype /Type1 /BaseFont /Helvetica>>>>>>"
    text = f"BT /F1 12 Tf 20 40 Td ({LABEL}) Tj ET"
    objects = (
        "<</Type /Catalog /Pages 2 0 R>>",
        "<</Type /Pages /Kids [3 0 R] /Count 1>>",
        f"<</Type /Page /Parent 2 0 R /MediaBox [0 0 240 80] /Contents 4 0 R /Resources {fonts}>>",
        f"<</Length {len(text)}>>\nstream\n{text}\nendstream",
    )
    made = "%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(made))
        made += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        f"{made}xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer\n<</Size {size} /Root 1 0 R>>\nstartxref\n{len(made)}\n%%EOF\n"
    ).encode()


def recording() -> bytes:
    """A WAV of a tenth of a second of silence, with LABEL after it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(8000)
        made.writeframes(bytes(1600))
    return file.getvalue() + b"LIST" + struct.pack("<I", len(LABEL)) + LABEL.encode()


FILES = {
    "https://raw.githubusercontent.com/langchain-ai/docs/4d11d08b6b0e210bd456943f7a22febbd168b543"
    "/src/images/agentic-rag-output.png": picture(),
    "https://www.w3.org/WAI/ER/tests/xhtml/testfiles/resources/pdf/dummy.pdf": document(),
    "https://upload.wikimedia.org/wikipedia/commons/6/6a/Northern_Flicker_202280456.wav": recording(),
}


def _file(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=FILES[str(request.url)])


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_fetched() -> Iterator[None]:
    """The suite's own `httpx.get` answers with FILES and with nothing else; clients are not touched."""
    with pytest.MonkeyPatch.context() as patch, httpx.Client(transport=httpx.MockTransport(_file)) as files:
        patch.setattr(chat_models, "httpx", files)
        patch.setenv("LANGCHAIN_TESTS_USER_AGENT", "tests of BaatCheet")
        patch.setenv("LANGSMITH_TRACING", "false")
        yield


@pytest.fixture(scope="module")
def vcr_config() -> dict[str, Any]:
    """The one test of the suite that would replay a recording speaks to the server instead."""
    return {"ignore_localhost": True}


# LangChain's own warnings: of a pydantic model as `parsed`, of its suite's use of pydantic's first version, of a file
# part without a name, and of the benchmark that has nothing recorded to measure.
@pytest.mark.filterwarnings(
    "ignore:Pydantic serializer warnings:UserWarning",
    "ignore:Received a Pydantic BaseModel V1 schema:UserWarning",
    "ignore:OpenAI may require a filename:UserWarning",
    "ignore:Benchmark fixture was not used:pytest_benchmark.logger.PytestBenchmarkWarning",
)
class TestChatOpenAI(ChatModelIntegrationTests):
    """`ChatOpenAI` with our address and one of our tokens."""

    _address: str
    _token: str

    @pytest.fixture(autouse=True)
    def _as_alice(self, alice: Caller) -> None:
        assert alice.token is not None
        self._address, self._token = f"{alice.base_url}/v1", alice.token

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": self._address, "api_key": self._token, "model": MODEL, "stream_usage": True}

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_pdf_inputs(self) -> bool:
        return True

    @property
    def supports_pdf_tool_message(self) -> bool:
        return True

    @property
    def supports_audio_inputs(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "scripted-fixed"

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[UsageDetail]]:
        return {
            "invoke": ["reasoning_output", "cache_read_input"],
            "stream": ["reasoning_output", "cache_read_input"],
        }

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._invoke("scripted-reasoning", stream=stream)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        return self._invoke(MODEL, stream=stream)

    def _invoke(self, name: str, *, stream: bool) -> AIMessage:
        model = ChatOpenAI(**{**self.chat_model_params, "model": name})
        if not stream:
            return model.invoke("Hello")
        whole: AIMessageChunk | None = None
        for chunk in model.stream("Hello"):
            assert isinstance(chunk, AIMessageChunk)
            whole = chunk if whole is None else whole + chunk
        assert whole is not None
        return whole


@pytest.mark.parametrize(
    ("kind", "mime_type", "content"),
    [
        ("image", "image/png", picture()),
        ("file", "application/pdf", document()),
        ("audio", "audio/wav", recording()),
    ],
)
def test_an_attachment_reaches_the_provider_byte_for_byte(
    alice: Caller, upstream: Upstream, kind: str, mime_type: str, content: bytes
) -> None:
    """The suite itself asks for no particular answer to an attachment."""
    assert alice.token is not None
    chat = ChatOpenAI(base_url=f"{alice.base_url}/v1", api_key=SecretStr(alice.token), model=MODEL)
    encoded = base64.b64encode(content).decode()
    said = f"what is in this {kind}?"
    part = {"type": kind, "mime_type": mime_type, "base64": encoded, "filename": f"{kind}.bin"}
    answer = chat.invoke([HumanMessage([{"type": "text", "text": said}, part])])
    assert said in answer.text
    assert encoded in str(upstream.last_messages(said)[-1]["content"][1])
    assert LABEL.encode() in content
