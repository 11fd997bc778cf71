"""Fixtures and helpers of all tests."""

import numpy as np
import pytest
import torch

import escnn_attn  # noqa: F401


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)  # the tensors of tests are small
    torch.manual_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
