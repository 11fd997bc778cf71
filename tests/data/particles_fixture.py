"""The charged particles that a user trains on, made once for all tests, in a cache folder of their own."""

import pytest

from escnn_attn.training import Recipe


@pytest.fixture(scope="session")
def test_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cached(test_cache, monkeypatch):
    monkeypatch.setenv("ESCNN_ATTN_CACHE", str(test_cache))


@pytest.fixture(scope="session")
def shipped(test_cache):
    """The default recipe, and its clouds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESCNN_ATTN_CACHE", str(test_cache))
        return Recipe(), Recipe().clouds()
