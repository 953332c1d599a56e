"""The tests are kept off the network."""

from __future__ import annotations

import socket

import pytest
from pytest_socket import SocketBlockedError


def test_no_network() -> None:
    with pytest.raises(SocketBlockedError):
        socket.socket(socket.AF_INET)
