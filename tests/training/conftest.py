"""Fixtures of the data tests, for training on the same clouds, and a run on image files."""

import warnings

import pytest

from escnn_attn.data import write_shapes
from tests.data.conftest import _cached, shipped, test_cache  # noqa: F401
from tests.training.runs import SMALL_IMAGES, run


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A folder of drawn shapes, 30 for training and 10 for test."""
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, train=30, test=10, side=20)
    return folder


@pytest.fixture(scope="session")
def images_run(tmp_path_factory, shapes):
    """The folder of a small run on drawn shapes."""
    folder = tmp_path_factory.mktemp("images_run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Lightning
        run(folder, f"data.folder={shapes}", "module.normalization={mean: 0.5, std: [0.2,0.3,0.4]}", small=SMALL_IMAGES)
    return folder
