"""Exported modules through torch's exports, traces and compilers: sizes that no test has met before, so that nothing is prepared."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.export import Dim, export

from escnn_attn import (
    Disc,
    DistanceBias,
    FourierFeedForward,
    GroupSelfAttention,
    KNearest,
    Neighborhood,
    PatchMerging,
    RadialBias,
    RotaryEmbedding,
    SteerableBackbone,
    SteerableDenseTransformer,
    SteerableFieldTransformer,
    SteerablePointTransformer,
    Upsampling,
    field_type,
    fourier_type,
    planar_gspace,
    steerable_block,
)
from escnn_attn.tokens import grid_of
from escnn_attn.tokens.windows import coarse_grid
from tests.helpers import randomize, relative, small_model


class Ring(Neighborhood):
    """A user's neighborhood: keys at distances between an inner and an outer radius."""

    def __init__(self, inner, outer):
        self.inner, self.outer = inner, outer

    def pairs(self, query, key, slack):
        distance = np.linalg.norm(key[:, None] - query[None], axis=-1)
        return np.stack(np.nonzero((distance > self.inner - slack) & (distance < self.outer + slack)))


SPECTRAL, REGULAR = fourier_type(planar_gspace("SO2"), 2, 1), fourier_type(planar_gspace("C4"), 2)
BLOCKS = {
    "global": lambda: steerable_block(SPECTRAL, num_heads=2),
    "discs": lambda: steerable_block(SPECTRAL, num_heads=1, position=DistanceBias, neighborhood=Disc(1.5)),
    "wide discs": lambda: steerable_block(SPECTRAL, num_heads=1, neighborhood=Disc(4.0)),
    "neighbors": lambda: steerable_block(SPECTRAL, num_heads=1, position=RadialBias, neighborhood=KNearest(5)),
    "a user's": lambda: steerable_block(SPECTRAL, num_heads=1, feedforward=FourierFeedForward, neighborhood=Ring(0.5, 2.5)),
    "group": lambda: GroupSelfAttention(REGULAR, num_heads=1, neighborhood=KNearest(4)),
}
NETWORKS = {
    "classifier": partial(small_model, "O2", depth=1, channels=2, max_frequency=1),
    "classifier of discs": partial(
        small_model,
        "SO2",
        depth=1,
        channels=2,
        max_frequency=1,
        block=partial(steerable_block, num_heads=1, neighborhood=Disc(2.0)),
    ),
    "fields": partial(small_model, "C4", SteerableFieldTransformer, out_fields={"vectors": 1}, depth=1, channels=2),
}
ALL = [*BLOCKS, *NETWORKS]
QUICK = ("discs", "neighbors", "group")
pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),  # that sizes are constants: other sizes are refused
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch, about itself
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def exported(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """A module on plain tensors, and an input of a size that is its own."""
    module = randomize({**BLOCKS, **NETWORKS}[name]())
    number = ALL.index(name)
    sides = (6 + number, 9) if name in BLOCKS else (21 + 4 * number, 25)
    return module.export(), torch.randn(2, module.in_type.size, *sides)


def assert_same(found, module: torch.nn.Module, x: torch.Tensor) -> None:
    """Equal to the module, which must not have been harmed by the export."""
    for batch in (2, 3):
        images = torch.randn(batch, *x.shape[1:])
        assert relative(found(images), module(images)) < 1e-5


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ALL])
def test_an_export_takes_any_batch(name):
    module, x = exported(name)
    program = export(module, (x,), dynamic_shapes=_batch(module), strict=False)
    assert_same(program.module(), module, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_strict_export_takes_any_batch(name):
    module, x = exported(name)
    program = export(module, (x,), dynamic_shapes=_batch(module), strict=True)
    assert_same(program.module(), module, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["discs", *NETWORKS])
def test_onnx_takes_any_batch(name, tmp_path):
    module, x = exported(name)
    run = in_onnx(module, (x,), _batch(module), tmp_path)
    with torch.no_grad():
        assert_same(run, module, x)


def in_onnx(module: torch.nn.Module, inputs: tuple, sizes: tuple, folder: Path):
    """An exported module in ONNX, as a function of tensors."""
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = str(folder / "model.onnx")
    torch.onnx.export(module, inputs, path, dynamo=True, dynamic_shapes=sizes, verbose=False)
    session = onnxruntime.InferenceSession(path)
    names = [given.name for given in session.get_inputs()]

    def run(*parts: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {name: part.numpy() for name, part in zip(names, parts)})[0])

    return run


def _batch(module: torch.nn.Module) -> tuple:
    """Any batch: `forward` of a network has an argument of images, and that of a layer any number of them."""
    sizes = {0: Dim("batch", min=1, max=64)}
    return (sizes,) if hasattr(module, "stem") else ((sizes,),)


@pytest.mark.parametrize("name", [*BLOCKS, "classifier of discs", "fields"])
def test_a_trace_takes_any_batch_and_refuses_other_sizes(name):
    module, x = exported(name)
    traced = torch.jit.trace(module, x)
    assert_same(traced, module, x)
    for sides in ((x.shape[2] + 4, x.shape[3]), (x.shape[2], x.shape[3] + 4), (2 * x.shape[2], x.shape[3])):
        with pytest.raises(RuntimeError, match=r"The expanded size of the tensor \(\d+\) must match the existing size"):
            traced(torch.randn(2, x.shape[1], *sides))


@pytest.mark.slow
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("network", [SteerableBackbone, SteerableDenseTransformer])
def test_networks_of_several_resolutions(network, strict):
    """What merges patches holds kernels of escnn, and what upsamples constants of the size."""
    options = {"num_classes": 3} if network is SteerableBackbone else {"out_fields": {"scalars": 1}}
    stages = [{"channels": 2, "depth": 1, "stride": 4}, {"channels": 2, "depth": 1}]
    model, x = network("SO2", in_type=1, stages=stages, **options).eval(), torch.randn(2, 1, 33, 33)
    expected = model(x)
    with torch.no_grad():
        found = export(model.export(), (x,), strict=strict).module()(x)
    assert relative(found, getattr(expected, "tensor", expected)) < 1e-5


@pytest.mark.parametrize("strict", [True, False])
def test_layers_of_several_resolutions(strict):
    t = field_type(planar_gspace("SO2"), scalars=1)
    for layer in (PatchMerging(t, t), Upsampling(t, 2)):
        x = torch.randn(2, 1, 9, 10)
        found = export(layer.eval().export(), (x,), strict=strict).module()(x)
        assert relative(found, layer(t(x)).tensor) < 1e-5


def test_coarser_grids_of_open_sides_repeat():
    class Coarse(torch.nn.Module):
        def forward(self, x):
            grid = coarse_grid(x[:, :, ::2, ::2], grid_of(x, periodic=True), 2)
            assert grid.cell is not None
            return x

    sides = {2: Dim("h", min=4, max=64), 3: Dim("w", min=4, max=64)}
    export(Coarse(), (torch.randn(2, 1, 32, 32),), dynamic_shapes=(sides,), strict=False)


def test_exported_points_give_zero_at_padding():
    near = partial(steerable_block, num_heads=1, position=partial(RotaryEmbedding, max_distance=20.0))
    fields = {"scalars": 1, "vectors": 1}
    network = SteerablePointTransformer("O2", out_fields=fields, channels=2, max_frequency=1, depth=1, block=near).eval()
    torch.nn.init.ones_(network.readout.core.bias)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    out = network.export()(torch.randn(2, 5, 1), torch.randn(2, 5, 2), mask)
    assert out[mask].abs().min() > 0
    assert not out[~mask].any()


def test_exported_points_in_float64_have_its_digits_beside_coords_of_fewer():
    near = partial(steerable_block, num_heads=1, position=partial(RotaryEmbedding, max_distance=20.0))
    network = SteerablePointTransformer("SO2", out_fields={"vectors": 1}, channels=2, max_frequency=1, depth=1, block=near)
    network, x, coords = network.double().eval(), torch.randn(1, 7, 1, dtype=torch.float64), torch.randn(1, 7, 2)
    found = network.export()(x, coords, torch.ones(1, 7, dtype=torch.bool))
    assert relative(found[0], network(network.in_type(x[0], coords[0])).tensor) < 1e-12
