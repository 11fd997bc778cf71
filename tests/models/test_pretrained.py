"""Weights that ship."""

import numpy as np
import pytest
import torch

from escnn_attn import SteerableTransformer
from escnn_attn.data import Digits, rotate_images, to_input
from escnn_attn.pretrained import available


@pytest.mark.parametrize("name", ["rotmnist", "rotmnist_50k"])
def test_shipped_weights_recognize_digits_they_have_not_seen_upright(name):
    """Some of these digits, rotated otherwise, may have been among those it was trained on: a test of loading alone."""
    assert name in available()
    images, labels = (part[:200] for part in Digits().arrays()["upright"])
    network = SteerableTransformer.from_pretrained(name)
    with torch.no_grad():
        logits = network(to_input(rotate_images(images, np.linspace(0, 360, 200))))
    assert (logits.argmax(dim=1).numpy() == labels).mean() > 0.95
