"""Every test runs offline, in its own caches, with one thread; the real data comes from LMDISTILL_DATA."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Property tests draw the same examples in every run, and a busy machine is no failure.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

# Set before anything imports torch, transformers or a hub client: they read these once.
_CACHES = tempfile.TemporaryDirectory(prefix="lmdistill-tests-")
for _name in ("HF_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCH_HOME", "NUMBA_CACHE_DIR"):
    os.environ[_name] = str(Path(_CACHES.name) / _name.lower())
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TRANSFORMERS_VERBOSITY="error",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    COLUMNS="120",
    NO_COLOR="1",
)
for _name in ("HF_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL", "FORCE_COLOR", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
    os.environ.pop(_name, None)


class NetworkBlocked(AssertionError):
    """A test tried to reach a network."""


def is_loopback(address: Any) -> bool:
    """Whether a socket address (a path, or a host and port) stays on this machine."""
    if not isinstance(address, tuple):
        return True  # a Unix socket's path
    host = str(address[0]).partition("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def block_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is resolved and no connection made; tests marked `network` may use 127.0.0.1."""
    loopback = request.node.get_closest_marker("network") is not None

    def guard(address: Any) -> None:
        if isinstance(address, tuple) and not (loopback and is_loopback(address)):
            raise NetworkBlocked(f"a test reached for {address!r}; mark it `network` if that is this machine")

    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        guard(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        guard(address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        guard((host.decode() if isinstance(host, bytes) else host or "", port))
        return getaddrinfo(host, port, *rest, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; a test that asks for it must carry the marker `real`."""
    folder = os.environ.get("LMDISTILL_DATA", "")
    if not folder:
        pytest.skip("LMDISTILL_DATA is not set: no real data on this machine")
    if not Path(folder).is_dir():
        pytest.skip(f"LMDISTILL_DATA names {folder}, which is not a folder")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason."""
    data = os.environ.get("LMDISTILL_DATA", "")
    no_data = pytest.mark.skip(reason="LMDISTILL_DATA is not set: no real data on this machine")
    no_gpu = pytest.mark.skip(reason="torch sees no CUDA device on this machine")
    gpu: bool | None = None
    for item in items:
        if item.get_closest_marker("real") and not (data and Path(data).is_dir()):
            item.add_marker(no_data)
        if item.get_closest_marker("gpu"):
            if gpu is None:
                import torch

                gpu = torch.cuda.is_available()
            if not gpu:
                item.add_marker(no_gpu)
