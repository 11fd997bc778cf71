"""Exports that keep sizes open: height and width of images, and the number of points of clouds."""

from functools import partial

import pytest
import torch
from torch.export import Dim, export

from escnn_attn import (
    Disc,
    DistanceBias,
    FourierFeedForward,
    GroupSelfAttention,
    InvariantPooling,
    KNearest,
    RadialBias,
    RotaryEmbedding,
    SteerablePointClassifier,
    SteerablePointTransformer,
    SteerableSelfAttention,
    steerable_block,
)
from tests.helpers import randomize, relative
from tests.models.test_export import NETWORKS, REGULAR, SPECTRAL, in_onnx

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch, about itself
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:# The axis name"),  # of ONNX, which keeps one name for each size
]

FAR = partial(RotaryEmbedding, max_distance=60.0)
OPEN = {
    "global": lambda: steerable_block(SPECTRAL, num_heads=2, position=FAR),
    "discs": lambda: steerable_block(SPECTRAL, num_heads=1, neighborhood=Disc(2.5)),
    "neighbors": lambda: steerable_block(SPECTRAL, num_heads=1, position=FAR, neighborhood=KNearest(5)),
    "bias": lambda: steerable_block(SPECTRAL, num_heads=1, position=RadialBias, neighborhood=Disc(1.5)),
    "samples": lambda: steerable_block(SPECTRAL, num_heads=1, position=DistanceBias, feedforward=FourierFeedForward),
    "group": lambda: GroupSelfAttention(REGULAR, num_heads=1, neighborhood=Disc(1.5)),
    "pooling": lambda: InvariantPooling(SPECTRAL),
    "classifier": partial(NETWORKS["classifier"], block=partial(steerable_block, num_heads=1, position=FAR)),
    "classifier of discs": NETWORKS["classifier of discs"],
    "fields": NETWORKS["fields"],
}
QUICK = ("discs",)


def opened(name: str) -> tuple[torch.nn.Module, torch.Tensor, tuple]:
    """A module on plain tensors, an input, and the dimensions of it that stay open: the strides of a stem keep the center of 4 n + 1."""
    module = randomize(OPEN[name]())
    size, found = module.in_type.size, module.export()
    network, batch = hasattr(found, "stem"), Dim("batch", min=1, max=64)
    sides = [4 * Dim(f"_{side}", min=3, max=16) + 1 if network else Dim(side, min=3, max=64) for side in ("height", "width")]
    shape = {0: batch, 2: sides[0], 3: sides[1]}
    return found, torch.randn(2, size, *((21, 25) if network else (6, 9))), ((shape,) if network else ((shape,),))


def assert_same_on_sizes(found, module: torch.nn.Module, x: torch.Tensor) -> None:
    """On larger and smaller sizes, landscape and portrait; all tokens of the small ones are near one another."""
    smallest = 13 if hasattr(module, "stem") else 3
    for batch, height, width in ((3, 29, 17), (1, 13, 21), (2, smallest, smallest)):
        images = torch.randn(batch, x.shape[1], height, width)
        assert relative(found(images), module(images)) < 1e-5


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in OPEN])
def test_an_export_takes_any_size(name, strict):
    module, x, sizes = opened(name)
    with torch.no_grad():
        program = export(module, (x,), dynamic_shapes=sizes, strict=strict)
        assert_same_on_sizes(program.module(), module, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPEN)
def test_an_export_finds_out_which_sizes_are_open(name):
    module, x, _ = opened(name)
    shape = dict.fromkeys((0, 2, 3), Dim.AUTO)
    with torch.no_grad():
        program = export(module, (x,), dynamic_shapes=(shape,) if hasattr(module, "stem") else ((shape,),))
        assert_same_on_sizes(lambda images: program.module()(images) if len(images) > 1 else module(images), module, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPEN)
def test_onnx_takes_any_size(name, tmp_path):
    module, x, sizes = opened(name)
    run = in_onnx(module, (x,), sizes, tmp_path)
    with torch.no_grad():
        assert_same_on_sizes(run, module, x)


def test_open_sizes_need_a_largest_distance_which_exports_check():
    x, sizes = torch.randn(1, SPECTRAL.size, 4, 5), (({2: Dim("height", min=2), 3: Dim("width", min=2)},),)
    with pytest.raises(
        ValueError, match=r"cannot be read .* an export that keeps sizes open: give RotaryEmbedding a max_distance"
    ):
        export(steerable_block(SPECTRAL, num_heads=1).export(), (x,), dynamic_shapes=sizes)
    near = SteerableSelfAttention(SPECTRAL, num_heads=1, position=partial(RotaryEmbedding, max_distance=6.0)).export()
    program = export(near, (x,), dynamic_shapes=sizes).module()
    assert relative(program(torch.ones(1, SPECTRAL.size, 4, 5)), near(torch.ones(1, SPECTRAL.size, 4, 5))) < 1e-5
    with pytest.raises(RuntimeError, match="tokens are farther apart than the max_distance 6 of RotaryEmbedding"):
        program(torch.randn(1, SPECTRAL.size, 4, 9))


FIELDS = {"scalars": 1, "vectors": 1}  # of scalars alone, distances would make vectors of zero
CLOUDS = {
    "logits": partial(SteerablePointClassifier, "O2", in_type=FIELDS, num_classes=3),
    "fields": partial(SteerablePointTransformer, "O2", in_type=FIELDS, out_fields={"vectors": 1}),
}
POINT_BLOCKS = {
    "global": partial(steerable_block, num_heads=1, position=partial(RotaryEmbedding, max_distance=9.0)),
    "discs": partial(steerable_block, num_heads=1, position=partial(RotaryEmbedding, max_distance=9.0), neighborhood=Disc(1.5)),
    "distances": partial(steerable_block, num_heads=1, position=DistanceBias, neighborhood=Disc(1.5)),
    "nearest": partial(steerable_block, num_heads=1, position=RadialBias, neighborhood=KNearest(6)),
}


def point_network(readout: str, block: str) -> torch.nn.Module:
    return randomize(CLOUDS[readout](channels=2, max_frequency=1, depth=1, block=POINT_BLOCKS[block])).eval()


def padded(batch: int, points: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Padded clouds, the last with two points less."""
    mask = torch.ones(batch, points, dtype=torch.bool)
    mask[-1, -2:] = False
    return torch.randn(batch, points, 3), torch.randn(batch, points, 2), mask


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


@pytest.mark.parametrize("readout", ["logits", pytest.param("fields", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "block", [pytest.param(name, marks=() if name == "discs" else pytest.mark.slow) for name in POINT_BLOCKS]
)
def test_clouds_are_exported_for_any_batch_and_number_of_points(readout, block):
    module = point_network(readout, block)
    with torch.no_grad():
        assert_same_on_clouds(module.export(), module)
        program = export(module.export(), padded(2, 6), dynamic_shapes=_open_sizes(), strict=False)
        assert_same_on_clouds(program.module(), module)


@pytest.mark.parametrize("readout", CLOUDS)
@pytest.mark.parametrize("block", ["discs", pytest.param("nearest", marks=pytest.mark.slow)])
def test_onnx_takes_any_clouds(readout, block, tmp_path):
    module = point_network(readout, block)
    run = in_onnx(module.export(), padded(2, 6), _open_sizes(), tmp_path)
    with torch.no_grad():
        assert_same_on_clouds(run, module)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("block", ["discs", "nearest"])
def test_a_trace_takes_any_clouds(block):
    """It must not keep the neighbors of the clouds at hand."""
    module = point_network("logits", block)
    with torch.no_grad():
        assert_same_on_clouds(torch.jit.trace(module.export(), padded(2, 6)), module)
