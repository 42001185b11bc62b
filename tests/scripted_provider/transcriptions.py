"""What is heard in a recording: how many bytes it has, in a few words."""

import re
from typing import Any

_FILE = re.compile(rb'name="file"; filename="[^"]*"\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--', re.DOTALL)


def hear(form: bytes) -> dict[str, Any] | None:
    """The answer to a transcription request; None for one without a recording."""
    found = _FILE.search(form)
    if found is None:
        return None
    text = f"A recording of {len(found.group(1))} bytes."
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": 1.0,
        "text": f" {text}",
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": -0.1,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.01,
    }
    words = [{"word": "recording", "start": 0.0, "end": 1.0}]
    return {
        "task": "transcribe",
        "language": "english",
        "duration": 1.0,
        "text": text,
        "segments": [segment],
        "words": words,
    }
