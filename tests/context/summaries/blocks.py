"""All blocks of chatter."""

from tests.context.summaries.block import Block
from tests.context.summaries.english import CODE, ENGLISH
from tests.context.summaries.south_asian import HINDI, ROMAN_URDU, URDU

BLOCKS = [ENGLISH, ROMAN_URDU, URDU, HINDI, CODE]

__all__ = ["BLOCKS", "CODE", "ENGLISH", "HINDI", "ROMAN_URDU", "URDU", "Block"]
