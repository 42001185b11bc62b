"""A listening socket that takes nobody new, and loses nobody who has come."""

import contextlib
import ctypes
import os
import socket
import struct
import sys

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER: Linux, asm-generic/socket.h

# A classic BPF program (linux/filter.h): load the flags of the TCP header; where SYN is set, drop, else let pass.
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in [(0x30, 0, 0, 13), (0x45, 1, 0, 0x02), (0x06, 0, 0, 0xFFFF_FFFF), (0x06, 0, 0, 0)]
)


def admit_nobody_new(descriptor: int) -> None:
    """From now on whoever wants to connect gets no answer, and asks again a second later.

    When the socket is closed by then, that is refused, and a load balancer goes elsewhere. Whoever was connected and
    waits to be accepted still can be: a socket that is merely closed cuts these off, with what they have sent. For a
    socket that no other process listens on. Where the system has no such filter, nothing changes.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
    header = struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(program))
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, header)
