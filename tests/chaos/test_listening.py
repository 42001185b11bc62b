"""A server that stops listening loses nobody who was connected to it already."""

import socket

import pytest

from baatcheet.platform.listening import admit_nobody_new


def test_who_was_connected_can_be_accepted_and_nobody_new_connects() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        early = socket.create_connection(address, timeout=5)
        admit_nobody_new(listener.fileno())
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=0.3)
        accepted, _ = listener.accept()
        with early, accepted:
            early.sendall(b"a request")
            assert accepted.recv(100) == b"a request"
            listener.close()
            accepted.sendall(b"an answer")
            assert early.recv(100) == b"an answer"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
