"""Clouds of very different sizes in one batch."""

import copy
import time
from functools import partial

import pytest
import torch

from escnn_attn import (
    Disc,
    InvariantPooling,
    SequentialModule,
    SteerableBatchNorm,
    SteerableLinear,
    SteerablePointClassifier,
    SteerablePointTransformer,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from tests.helpers import relative

T = fourier_type(planar_gspace("SO2"), 2, 1)
SMALL = {"channels": 2, "max_frequency": 1, "depth": 1}
MODULES = {
    "block": lambda: steerable_block(T, num_heads=1),
    "block of discs": lambda: steerable_block(T, num_heads=1, neighborhood=Disc(1.0)),
    "pooling": lambda: InvariantPooling(T),
    "fields": lambda: SteerablePointTransformer("SO2", in_type=T, out_fields={"vectors": 1}, **SMALL),
    "classes": lambda: SteerablePointClassifier("SO2", in_type=T, num_classes=3, **SMALL),
}


def ragged(sizes: list[int]) -> tuple:
    """Points of clouds of given sizes, in no order, and the cloud of each."""
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    batch = batch[torch.randperm(len(batch))]
    return torch.randn(len(batch), T.size), torch.randn(len(batch), 2), batch


def call(module, x, coords, batch, **options):
    out = module(T(x, coords) if module.in_type is not T else module.in_type(x, coords), batch=batch, **options)
    return out if isinstance(out, torch.Tensor) else out.tensor


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("masked", [False, True])
def test_each_cloud_has_the_result_it_has_alone(name, masked, monkeypatch):
    monkeypatch.setattr("escnn_attn.tokens._ragged.FEW_PLACES", 0)
    module, sizes = MODULES[name]().double(), [40, 3, 0, 1, 5, 17, 4, 2]
    x, coords, batch = ragged(sizes)
    x, coords = x.double(), coords.double()
    options = {}
    if masked:
        options = {"mask": torch.rand(len(batch)) < 0.9, "quadrature_weights": torch.rand(len(batch), dtype=torch.float64)}
    found = call(module, x, coords, batch, batch_size=len(sizes) + 1, **options)
    for cloud in [i for i, size in enumerate(sizes) if size]:
        own = batch == cloud
        alone = call(module, x[own], coords[own], torch.zeros_like(batch[own]), **{k: v[own] for k, v in options.items()})
        assert relative(found[own] if name in ("block", "block of discs", "fields") else found[cloud : cloud + 1], alone) < 1e-3


def test_one_long_cloud_among_many_short_ones_is_not_padded_to():
    """Time and memory are those of the points: of clouds × longest, this would be 2.5 million."""
    module, (x, coords, batch) = MODULES["block"](), ragged([5000, *[10] * 499])
    start = time.perf_counter()
    call(module, x, coords, batch)
    assert time.perf_counter() - start < 20


def test_clouds_of_similar_sizes_stay_together(monkeypatch):
    monkeypatch.setattr("escnn_attn.tokens._ragged._part", partial(pytest.fail, "taken apart"))
    x, coords, batch = ragged([9, 10, 11, 12] * 500)
    call(MODULES["block"](), x, coords, batch)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (lambda n: {"masks": torch.ones(n, dtype=torch.bool)}, TypeError),
        (lambda n: {"quadrature_weight": torch.rand(n)}, TypeError),
        (lambda n: {"mask": [True] * n}, TypeError),
        (lambda n: {"mask": torch.ones(n + 7, dtype=torch.bool)}, ValueError),
        (lambda n: {"mask": torch.ones(n - 7, dtype=torch.bool)}, ValueError),
        (lambda n: {"quadrature_weights": torch.ones(n + 7)}, ValueError),
        (lambda n: {"batch_size": 50}, ValueError),
    ],
)
def test_arguments_are_checked_as_those_of_similar_sizes(options, error):
    x, coords, batch = ragged([100, *[2] * 300])
    with pytest.raises(error):
        call(MODULES["pooling"](), x, coords, batch, **options(len(batch)))


def test_norms_in_training_average_over_all_clouds(monkeypatch):
    def stem(in_type, out_type):
        return SequentialModule(SteerableLinear(in_type, out_type), SteerableBatchNorm(out_type))

    module = SteerablePointClassifier("SO2", in_type=T, num_classes=3, stem=stem, **SMALL).train()
    together, (x, coords, batch) = copy.deepcopy(module), ragged([40, 3, 5, 17])
    with monkeypatch.context() as patch:
        patch.setattr("escnn_attn.tokens._ragged.FEW_PLACES", 0)
        found = call(module, x, coords, batch)
    assert relative(found, call(together, x, coords, batch)) < 1e-6
    assert torch.equal(module.stem[1].running_var, together.stem[1].running_var)
