"""Simulated clouds of charged particles, in a cache folder shared by all tests."""

import pytest

from escnn_attn.data import SimulationConfig


@pytest.fixture(scope="session")
def test_cache(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def _cached(test_cache, monkeypatch):
    monkeypatch.setenv("ESCNN_ATTN_CACHE", str(test_cache))


@pytest.fixture(scope="session")
def shipped(test_cache):
    """The default simulation, and its clouds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESCNN_ATTN_CACHE", str(test_cache))
        return SimulationConfig(), SimulationConfig().clouds()
