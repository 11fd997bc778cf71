"""A training step on grids reads no number from the device: the host runs ahead of it."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from escnn_attn import (
    Disc,
    SteerableBatchNorm,
    SteerableStack,
    SteerableTransformer,
    convolution_stem,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from tests.helpers import small_model
from tests.nn.neighborhood.test_neighborhoods import Waits

T = fourier_type(planar_gspace("SO2"), 4, 2)
NORMALIZED = partial(convolution_stem, norm=SteerableBatchNorm)
BLOCK = partial(steerable_block, num_heads=2, dropout=0.1, drop_path=0.1)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "SO(2), with dropout and checkpointing": partial(small_model, "SO2", SteerableTransformer, block=BLOCK, checkpointing=True),
    "O(2), with batch norm": partial(small_model, "O2", SteerableTransformer, stem=NORMALIZED),
}


def waits(step: Callable[[], object]) -> int:
    with Waits() as found:
        step()
    return found.count.total()


@pytest.mark.parametrize(("neighborhood", "periodic"), [(None, False), (Disc(2.0), False), (Disc(2.0), True)])
def test_a_stack_never_waits_for_the_device(neighborhood, periodic):
    stack = SteerableStack([steerable_block(T, num_heads=2, neighborhood=neighborhood) for _ in range(2)])
    x = torch.randn(2, T.size, 8, 9, requires_grad=True)
    assert waits(lambda: stack(T(x), periodic=periodic).tensor.sum().backward()) == 0
    assert x.grad is not None


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_images_never_waits_for_the_device(name):
    """Stem, blocks, pooling, logits and loss, forward and backward."""
    network, images, labels = NETWORKS[name](), torch.randn(3, 1, 29, 29), torch.arange(3)
    assert waits(lambda: F.cross_entropy(network(images), labels).backward()) == 0
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_network_that_waits_is_found():
    network = small_model("SO2", SteerableTransformer)
    network.stem.register_forward_hook(lambda _module, _inputs, out: out if out.tensor.isfinite().all() else None)
    assert waits(lambda: network(torch.randn(1, 1, 29, 29))) == 1
