"""The guards of the test suite itself."""

from __future__ import annotations

import os
import socket
import threading
import warnings

import pytest


def test_the_network_is_blocked() -> None:
    with pytest.raises(AssertionError, match=r"reached for \('127.0.0.1', 9\)"):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    with pytest.raises(AssertionError, match=r"example\.org"):
        socket.getaddrinfo("example.org", 80)
    with socket.socket() as raw, pytest.raises(AssertionError, match="192"):
        raw.connect_ex(("192.0.2.1", 80))


@pytest.mark.network
def test_marked_tests_reach_this_machine_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = threading.Thread(target=lambda: server.accept()[0].sendall(b"hi"))
        answer.start()
        with socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as client:
            assert client.recv(2) == b"hi"
        answer.join()
    with pytest.raises(AssertionError, match=r"192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_warnings_of_our_modules_are_errors() -> None:
    with pytest.raises(UserWarning, match="ours"):
        warnings.warn_explicit("ours", UserWarning, "lmdistill/train.py", 1, module="lmdistill.train")


def test_hub_clients_are_offline_and_keep_to_a_temporary_folder() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert "lmdistill-tests-" in os.environ["HF_HOME"]
