"""Model families by their names: the vocabulary, what the chat format and pictures cost. Data, and a look-up."""

import re
from dataclasses import dataclass
from functools import lru_cache

from baatcheet.providers.model import Encoding


@dataclass(frozen=True)
class Tiles:
    """Pictures cost `base` tokens, and `tile` for each square of 512 pixels (OpenAI's vision guide)."""

    base: int
    tile: int

    @property
    def worst(self) -> int:
        """A picture of 768 x 2048 pixels: no other has more tiles once it is scaled down."""
        return self.base + 8 * self.tile


@dataclass(frozen=True)
class Patches:
    """Pictures cost `factor` tokens for each square of 32 pixels, of which there are `most` (the same guide)."""

    factor: float
    most: int = 1536

    @property
    def worst(self) -> int:
        return round(self.most * self.factor)


ImageCost = Tiles | Patches

GPT_4O_IMAGES = Tiles(85, 170)


@dataclass(frozen=True)
class Family:
    """Models with one vocabulary and one chat format. `overhead` is tokens per message, `priming` per prompt."""

    names: str  # a pattern for the beginning of a model's name, without its maker's
    encoding: Encoding
    overhead: int
    priming: int
    images: ImageCost = GPT_4O_IMAGES


# The first that matches counts. Overheads are of the published chat templates, for the longest role.
FAMILIES = (
    # Harmony: <|start|>user<|message|>…<|end|>, and a system message of its own of some sixty tokens.
    Family(r"gpt-oss", "o200k_base", 4, 66),
    Family(r"gpt-4o-mini", "o200k_base", 4, 3, Tiles(2833, 5667)),
    Family(r"gpt-(4\.1|5)-mini", "o200k_base", 4, 3, Patches(1.62)),
    Family(r"gpt-(4\.1|5)-nano", "o200k_base", 4, 3, Patches(2.46)),
    Family(r"o4-mini", "o200k_base", 4, 3, Patches(1.72)),
    Family(r"gpt-5(?![\d.])", "o200k_base", 4, 3, Tiles(70, 140)),
    Family(r"o[13](?![\w.])", "o200k_base", 4, 3, Tiles(75, 150)),
    Family(r"(chatgpt-|gpt-)4o|gpt-4\.[15]", "o200k_base", 4, 3),
    Family(r"gpt-(4|3\.5)(?![\w.])|text-embedding-(3|ada)", "cl100k_base", 4, 3),
    # <|begin_of_text|>, <|start_header_id|>role<|end_header_id|>\n\n…<|eot_id|>; from 3.1 on two dates at the top.
    Family(r"llama-?3\.[1-3]", "llama3", 5, 30),
    Family(r"llama-?3(?![.\d])", "llama3", 5, 5),
    # <begin of sentence>, <User>…<Assistant>…<end of sentence>
    Family(r"deepseek-(chat|reasoner|v3)(?!.*distill)", "deepseek_v3", 2, 2),
    # Of one name with what was distilled into Qwen and Llama, which Ollama tells from it by their size alone.
    Family(
        r"deepseek-r1(?!.*(distill|qwen|llama))(?![:-](?!671b)[\d.]+b)(?!.*:(?!671b|free|nitro))",
        "deepseek_v3",
        2,
        2,
    ),
    # <bos>, <start_of_turn>role\n…<end_of_turn>\n
    Family(r"gemma-?3", "gemma3", 5, 4),
    Family(r"gemma-?2", "gemma2", 5, 4),
    # <|im_start|>role\n…<|im_end|>\n; 2.5 says who it is when no system message does.
    Family(r"qwen-?2(\.5)?(?![.\d])", "qwen3", 5, 24),
    Family(r"qwen-?3(?![.\d])|qwq-32b", "qwen3", 5, 3),
    # <s>, [INST]…[/INST]…</s>, [SYSTEM_PROMPT]…[/SYSTEM_PROMPT], by the Tekken vocabulary; not Small before 3.
    Family(
        r"(open-)?mistral-nemo|pixtral-12b|ministral-(3|8)b|mistral-small[-:]?(3(?!\d)|24b|250[136])",
        "mistral_v3",
        2,
        1,
    ),
)

_PATTERNS = tuple((re.compile(family.names), family) for family in FAMILIES)


LONGEST_NAME = 500  # characters; clients make up names


def family_of(name: str) -> Family | None:
    """The family of the model that a provider calls `name`; None when its vocabulary is not known."""
    return _family_of(name) if len(name) <= LONGEST_NAME else None


@lru_cache(maxsize=1_024)
def _family_of(name: str) -> Family | None:
    short = name.lower().rpartition("/")[2].removeprefix("meta-").removeprefix("models-")
    return next((family for pattern, family in _PATTERNS if pattern.match(short)), None)
