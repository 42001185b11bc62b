"""What a sandbox and its child say to each other over two pipes: a length of four bytes, then msgpack.

A module whose functions run in a sandbox takes `Refused` and `Report` from here and not from `isolation`: this one
imports nothing but msgspec and the standard library, and every new child imports what such a module imports.
"""

import struct
from collections.abc import Callable
from typing import Final

import msgspec

LENGTH: Final = struct.Struct(">I")
MOST_RESULT: Final = 16_000_000  # bytes; what is larger goes by a file
MOST_ANSWER: Final = MOST_RESULT + 100_000
MOST_PHRASE: Final = 200  # characters
MOST_TEXT: Final = 8_000  # characters of a refusal or a traceback

Report = Callable[[float, str], None]
"""What a function in a sandbox calls to tell how far it is: percent, and a phrase for the owner."""


class Refused(ValueError):
    """What was given can't be worked on. The message says why, in plain words for its owner.

    Raised by a function inside a sandbox, it arrives outside as it is.
    """


class Call(msgspec.Struct, tag="call", array_like=True):
    """Run `function` (`module:name`) with `argument`."""

    function: str
    argument: msgspec.Raw
    memory: int
    """Bytes of address space that it may take beyond what the child has by then."""
    cpu: int
    """Seconds of processor time, of all its threads together."""


class Started(msgspec.Struct, tag="started", array_like=True):
    """The function is imported and begins now."""


class Progressed(msgspec.Struct, tag="progress", array_like=True):
    """How far it is."""

    percent: float
    phrase: str


class Returned(msgspec.Struct, tag="returned", array_like=True):
    """The function's result."""

    result: msgspec.Raw
    resident: int
    """Bytes of memory that the child holds after it."""


class Refusal(msgspec.Struct, tag="refused", array_like=True):
    """The function raised `Refused`."""

    words: str


class Failure(msgspec.Struct, tag="failed", array_like=True):
    """The function raised something else."""

    error: str
    """The exception's class."""
    traceback: str
    memory: bool
    """Whether it was for want of memory."""
    healthy: bool
    """Whether the child can go on to another call."""


Answer = Started | Progressed | Returned | Refusal | Failure
