"""Attention inside a network, as it is drawn."""

import runpy
import sys

import pytest
import torch

from escnn_attn import SteerableTransformer
from escnn_attn.analysis import attention_map
from tests.helpers import relative


def test_attention_and_vectors_turn_with_the_image():
    torch.manual_seed(0)
    network = SteerableTransformer("SO2", channels=8, depth=2).eval()
    images = torch.rand(2, 1, 29, 29)
    found, turned = (attention_map(network, x) for x in (images, torch.rot90(images, 1, (-2, -1))))
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    to = torch.cdist(found.positions @ quarter.mT, turned.positions).argmin(dim=1)
    assert found.weights.shape == (2, 4, len(to))
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(2, 4))
    assert relative(turned.weights[:, :, to], found.weights) < 1e-4
    assert relative(turned.fields[:, to], found.fields @ quarter.mT) < 1e-4


def test_networks_without_vectors_are_refused():
    with pytest.raises(ValueError, match=r"on SO\(2\) with vector fields"):
        attention_map(SteerableTransformer("trivial", channels=8, depth=1), torch.rand(1, 1, 29, 29))
    with pytest.raises(ValueError, match="one of 1 blocks, got 3"):
        attention_map(SteerableTransformer("SO2", channels=2, depth=1), torch.rand(1, 1, 29, 29), block=3)


def test_the_script_refuses_what_is_not_trained(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["plot_attention.py", f"checkpoint={tmp_path}"])
    with pytest.raises(SystemExit, match="error: expected one of"):
        runpy.run_path("scripts/plot_attention.py", run_name="__main__")
