"""A FAKE model provider for tests and benchmarks. It runs no model: its answers are made by a script.

It speaks the OpenAI protocol (chat completions, models, embeddings) over a real socket:

    with ScriptedProvider() as upstream:
        upstream.script(Step(status=429, retry_after="3"), Step(reply="hello"))
        ...                                   # point a client at upstream.base_url
        upstream.requests[-1].body            # what it was asked

or, in a process of its own, `python -m tests.scripted_provider --port 9000`. What it does with a request is
said by the first of these that applies:

1. the next `Step` queued by `script()`;
2. a directive anywhere in the last user message: `[[scripted {"chunks": 50, "chunk_delay": 0.02}]]`, whose
   JSON holds the fields of `Step`;
3. the model's name, for suites that see nothing but a base URL: each name of `PRESETS` (`scripted-echo`,
   `scripted-hang`, `scripted-cut`, `scripted-429` …);
4. the default step, `ScriptedProvider(default=Step(...))`.

Other names that begin with `scripted` (or are given as `models=`) are served with the default; any other is
404 `model_not_found`.

A step that names neither a reply nor tool calls answers as `answers.answer` does: with JSON that fits
`response_format`; with calls of the tools when `tool_choice` forces one or the last user message names one
(numbers and quoted words of the message become arguments); after a tool's result with a text that holds it;
otherwise with an echo, `You said: …`. `stop`, `max_tokens`, `n` and `logprobs` are obeyed, and a malformed
request is refused with OpenAI's envelope. Tokens are reckoned as one per four characters.
"""

from .server import Recorded, ScriptedProvider
from .steps import PRESETS, Call, Step

__all__ = ["PRESETS", "Call", "Recorded", "ScriptedProvider", "Step"]
