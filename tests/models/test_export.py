"""Exported modules through torch's exports, traces and compilers: sizes that no test has met before, so that nothing is prepared."""

from functools import partial

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
    RadialBias,
    RotaryEmbedding,
    SteerableFieldTransformer,
    SteerablePointClassifier,
    SteerablePointTransformer,
    fourier_type,
    planar_gspace,
    steerable_block,
)
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
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    module, x = exported(name)
    path = str(tmp_path / "model.onnx")
    torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=_batch(module), verbose=False)
    session = onnxruntime.InferenceSession(path)

    def run(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])

    with torch.no_grad():
        assert_same(run, module, x)


def _batch(module: torch.nn.Module) -> tuple:
    """Any batch: `forward` of a network has an argument of images, and that of a layer any number of them."""
    sizes = {0: Dim("batch", min=1, max=64)}
    return (sizes,) if hasattr(module, "stem") else ((sizes,),)


@pytest.mark.parametrize("name", ["global", "fields", "classifier of discs"])
def test_a_dynamic_size_is_refused(name):
    module, x = exported(name)
    sizes = {2: Dim("height", min=4) if name == "global" else 4 * Dim("height", min=4) + 1}
    shapes = (sizes,) if hasattr(module, "stem") else ((sizes,),)
    with pytest.raises(ValueError, match="expected images of a fixed height and width for an export, got the dynamic size"):
        export(module, (x,), dynamic_shapes=shapes, strict=False)


@pytest.mark.parametrize("name", [*BLOCKS, "classifier of discs", "fields"])
def test_a_trace_takes_any_batch_and_refuses_other_sizes(name):
    module, x = exported(name)
    traced = torch.jit.trace(module, x)
    assert_same(traced, module, x)
    for sides in ((x.shape[2] + 4, x.shape[3]), (x.shape[2], x.shape[3] + 4), (2 * x.shape[2], x.shape[3])):
        with pytest.raises(RuntimeError, match=r"The expanded size of the tensor \(\d+\) must match the existing size"):
            traced(torch.randn(2, x.shape[1], *sides))


CLOUDS = {
    "logits": partial(SteerablePointClassifier, "O2", num_classes=3),
    "fields": partial(SteerablePointTransformer, "O2", out_fields={"vectors": 1}),
}
POINT_BLOCKS = {
    "global": partial(steerable_block, num_heads=1, position=partial(RotaryEmbedding, max_distance=9.0)),
    "discs": partial(steerable_block, num_heads=1, position=partial(RotaryEmbedding, max_distance=9.0), neighborhood=Disc(1.5)),
    "distances": partial(steerable_block, num_heads=1, position=DistanceBias, neighborhood=Disc(1.5)),
}


def point_network(readout: str, block: str) -> torch.nn.Module:
    return randomize(CLOUDS[readout](channels=2, max_frequency=1, depth=1, block=POINT_BLOCKS[block])).eval()


def padded(batch: int, points: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Padded clouds, the last with two points less."""
    mask = torch.ones(batch, points, dtype=torch.bool)
    mask[-1, -2:] = False
    return torch.randn(batch, points, 1), torch.randn(batch, points, 2), mask


def assert_same_on_clouds(found, module: torch.nn.Module) -> None:
    for batch, points in ((2, 7), (3, 12), (1, 5)):
        x, coords, mask = padded(batch, points)
        index = torch.arange(batch)[:, None].expand(-1, points)[mask]
        expected = module(module.in_type(x[mask], coords[mask]), batch=index, batch_size=batch)
        out = found(x, coords, mask)
        if out.dim() == 2:
            assert relative(out, expected) < 1e-5
        else:
            assert relative(out[mask], expected.tensor) < 1e-5


def _open_sizes() -> tuple:
    batch, points = Dim("batch", min=1, max=64), Dim("points", min=3, max=4096)
    return tuple({0: batch, 1: points} for _ in range(3))


@pytest.mark.parametrize("readout", CLOUDS)
@pytest.mark.parametrize("block", POINT_BLOCKS)
def test_clouds_are_exported_for_any_batch_and_number_of_points(readout, block):
    module = point_network(readout, block)
    with torch.no_grad():
        assert_same_on_clouds(module.export(), module)
        program = export(module.export(), padded(2, 6), dynamic_shapes=_open_sizes(), strict=False)
        assert_same_on_clouds(program.module(), module)


@pytest.mark.parametrize("readout", CLOUDS)
def test_onnx_takes_any_clouds(readout, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    module, path = point_network(readout, "discs"), str(tmp_path / "model.onnx")
    torch.onnx.export(module.export(), padded(2, 6), path, dynamo=True, dynamic_shapes=_open_sizes(), verbose=False)
    session = onnxruntime.InferenceSession(path)
    names = [given.name for given in session.get_inputs()]

    def run(*parts: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {name: part.numpy() for name, part in zip(names, parts)})[0])

    with torch.no_grad():
        assert_same_on_clouds(run, module)
