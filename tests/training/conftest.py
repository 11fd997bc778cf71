"""Fixtures of the data tests, for training on the same clouds."""

from tests.data.conftest import _cached, shipped, test_cache  # noqa: F401
