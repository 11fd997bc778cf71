"""One table of constructors, and of values without sense for each argument: all are refused by name and value."""

from functools import partial

import numpy as np
import pytest
import torch
from escnn.nn import GeometricTensor

import escnn_attn as ea
from escnn_attn.testing import assert_equivariant, equivariance_error

NAN, INF = float("nan"), float("inf")
SO2, C4 = ea.planar_gspace("SO2"), ea.planar_gspace("C4")
T, REGULAR, SCALARS = ea.fourier_type(SO2, 4, 2), ea.fourier_type(C4, 4), ea.field_type(C4, scalars=2)
HEAD = ea.fourier_type(SO2, 2, 1)

NO_INTEGER = ["2", 2.0, 2.5, NAN, INF, True, [2], 2j, np.bool_(True), torch.tensor(2.0)]
COUNT = [*NO_INTEGER, None, 0, -1]
DEFAULT_COUNT = [*NO_INTEGER, 0, -1]
SIZE = [*NO_INTEGER, -1]
POSITIVE = ["3", NAN, INF, -INF, -1.0, 0, 1j, None, [1.0], True, torch.tensor([1.0, 2.0])]
SHARE = [2.0, 1.0, -0.1, NAN, INF, "0.1", None, True, 1j, [0.1]]
PAIR = [6, "66", (6,), (6, 7, 8), (6, INF), (NAN, 6), (0, 6), ("6", "60"), (-1, 2), (1j, 2), None, ()]
ORDERED = [*PAIR, (60, 6)]
FLAG = ["yes", 1, None, 0.0, []]
TYPE = [2, "SO2", SO2, None, T.representations]
NO_FACTORY = [2, 0, "", "relu", [], ea.SteerableRMSNorm(T)]
FACTORY = [*NO_FACTORY, None]
NEIGHBORHOOD = [2.0, "disc", ea.Disc, ea.KNearest]
LIMIT = ["2", 2.0, NAN, INF, True, -1]
LAYERS = [2, None, [], [2], ["relu"]]

attention = {"num_heads": COUNT, "head_channels": [*DEFAULT_COUNT, 3], "neighborhood": NEIGHBORHOOD}
steerable = {**attention, "in_type": TYPE, "max_frequency": LIMIT, "position": FACTORY, "dropout": SHARE}
group = {**attention, "in_type": TYPE, "wavelengths": ORDERED, "checkpointing": FLAG}
embedding = {"head_type": TYPE, "num_heads": COUNT}
rotary = {
    **embedding, "wavelengths": ORDERED, "max_distance": [v for v in POSITIVE if v is not None], "tolerance": POSITIVE,
    "rotary_fraction": [*POSITIVE, 1.5], "head_groups": DEFAULT_COUNT, "reach": [v for v in POSITIVE if v is not None],
}  # fmt: skip
blocks = {"field_type": TYPE, "num_heads": COUNT, "neighborhood": NEIGHBORHOOD, "feedforward": FACTORY, "drop_path": SHARE}
network = {
    "group": [2, None, "SO(2)", "E2", T], "in_type": [0, -1, "1", 1.5, None, {"scalars": "1"}, {"tensors": 1}, T.representations],
    "channels": COUNT, "max_frequency": LIMIT, "depth": [*NO_INTEGER, None, -1], "block": NO_FACTORY, "stem": FACTORY,
}  # fmt: skip
logits = {**network, "num_classes": COUNT}
fields = {**network, "out_fields": [0, -1, "1", 1.5, None, {"vectors": NAN}]}
image = {"image_size": [*DEFAULT_COUNT, (29,), (29, "29"), (29, 29, 29)]}
linear = ea.SteerableLinear(T, T)

#: for each constructor its arguments, and for each of some arguments values without sense
CONSTRUCTORS = {
    "planar_gspace": (ea.planar_gspace, {}, {"name": [2, None, "SO(2)", "C0", "c4", b"C4"]}),
    "fourier_type": (ea.fourier_type, {"gspace": SO2, "channels": 4, "max_frequency": 2}, {"gspace": ["SO2", None, 2, T], "channels": COUNT, "max_frequency": [*LIMIT, None]}),
    "fourier_type of C4": (ea.fourier_type, {"gspace": C4, "channels": 4}, {"max_frequency": [*LIMIT, 3]}),
    "field_type": (ea.field_type, {"gspace": SO2, "scalars": 2}, {"gspace": ["SO2", None, 2, T], "scalars": SIZE, "vectors": SIZE}),
    "IsotypicLayout": (ea.IsotypicLayout, {"field_type": T}, {"field_type": TYPE}),
    "Irreps.times": (ea.IsotypicLayout(T).irreps.times, {}, {"factor": POSITIVE}),
    "sample_counts": (ea.RotaryEmbedding(HEAD, 2).sample_counts, {}, {"distance": [NAN, INF, -1.0]}),
    "Grid": (ea.Grid, {"height": 3, "width": 3}, {"height": SIZE, "width": SIZE, "batch_size": SIZE, "spacing": POSITIVE, "mask": [2, [True]], "quadrature_weights": [2, [1.0]], "dtype": ["float32", None, torch.long, torch.bool]}),
    "SteerableLinear": (ea.SteerableLinear, {"in_type": T, "out_type": T}, {"in_type": TYPE, "out_type": TYPE, "bias": FLAG}),
    "SteerableRMSNorm": (ea.SteerableRMSNorm, {"in_type": T}, {"in_type": TYPE, "eps": POSITIVE}),
    "SteerableBatchNorm": (ea.SteerableBatchNorm, {"in_type": T}, {"in_type": TYPE, "eps": POSITIVE, "momentum": [NAN, INF, -1.0, 0.0, 1.5, "1", None]}),
    "BilinearFeedForward": (ea.BilinearFeedForward, {"in_type": T}, {"in_type": TYPE, "expansion": POSITIVE}),
    "GatedFeedForward": (ea.GatedFeedForward, {"in_type": T}, {"in_type": TYPE, "expansion": POSITIVE}),
    "FourierFeedForward": (ea.FourierFeedForward, {"in_type": T}, {"in_type": TYPE, "expansion": POSITIVE, "num_samples": [*DEFAULT_COUNT, 4], "tolerance": POSITIVE}),
    "FourierFeedForward of C4": (ea.FourierFeedForward, {"in_type": REGULAR}, {"num_samples": [4]}),
    "FourierGELU": (ea.FourierGELU, {"in_type": T}, {"in_type": TYPE, "num_samples": [*DEFAULT_COUNT, 4]}),
    "InvariantPooling": (ea.InvariantPooling, {"in_type": T}, {"in_type": TYPE}),
    "SteerableSelfAttention": (ea.SteerableSelfAttention, {"in_type": T, "num_heads": 2}, {**steerable, "out_type": [2, "SO2", SO2]}),
    "SteerableCrossAttention": (ea.SteerableCrossAttention, {"in_type": T, "context_type": T, "num_heads": 2}, {**steerable, "context_type": TYPE}),
    "GroupSelfAttention": (ea.GroupSelfAttention, {"in_type": REGULAR, "num_heads": 2}, group),
    "LiftingSelfAttention": (ea.LiftingSelfAttention, {"in_type": SCALARS, "out_type": REGULAR, "num_heads": 2}, group),
    "NoPosition": (ea.NoPosition, {"head_type": HEAD, "num_heads": 2}, embedding),
    "DistanceBias": (ea.DistanceBias, {"head_type": HEAD, "num_heads": 2}, {**embedding, "lengths": PAIR}),
    "RadialBias": (ea.RadialBias, {"head_type": HEAD, "num_heads": 2}, {**embedding, "extent": POSITIVE, "centers": [*COUNT, 1]}),
    "RotaryEmbedding": (ea.RotaryEmbedding, {"head_type": HEAD, "num_heads": 2}, rotary),
    "QueryKeyRotaryEmbedding": (ea.QueryKeyRotaryEmbedding, {"head_type": HEAD, "num_heads": 2}, rotary),
    "Disc": (ea.Disc, {}, {"radius": POSITIVE}),
    "KNearest": (ea.KNearest, {}, {"k": COUNT}),
    "SteerableTransformerBlock": (ea.SteerableTransformerBlock, {"attention": linear, "feedforward": linear}, {"drop_path": SHARE, "attention": [2, None, ea.SteerableLinear], "feedforward": [2, None, ea.SteerableLinear]}),
    "SteerableStack": (ea.SteerableStack, {}, {"layers": LAYERS}),
    "SequentialModule": (ea.SequentialModule, None, {"modules": [1, None, "relu", torch.nn.ReLU()]}),
    "steerable_block": (ea.steerable_block, {"field_type": T, "num_heads": 2}, {**blocks, "position": FACTORY, "dropout": SHARE}),
    "group_block": (ea.group_block, {"field_type": REGULAR, "num_heads": 2}, blocks),
    "convolution_stem": (ea.convolution_stem, {"in_type": SCALARS, "out_type": REGULAR}, {"in_type": TYPE, "out_type": TYPE, "kernel_sizes": [0, None, (9,), (9, "5"), (9, -1), ()], "strides": [0, None, (2, 0), (2, "2"), ()], "hidden_channels": DEFAULT_COUNT, "norm": FACTORY}),
    "antialiased_stem": (ea.antialiased_stem, {"in_type": SCALARS, "out_type": REGULAR}, {"in_type": TYPE, "out_type": TYPE, "kernel_sizes": [0, None, (11,), (11, "5"), (11, 4), (3, 5), ()], "strides": [0, None, (4, 2), (4, 2, 0), (4, 2, "2"), ()], "hidden_channels": COUNT, "norm": FACTORY}),
    "lifting_stem": (ea.lifting_stem, {"in_type": SCALARS, "out_type": REGULAR}, {"in_type": TYPE, "out_type": TYPE, "kernel_size": [*COUNT, 4], "strides": [0, None, (2,), (2, 0), (2, "2"), ()], "hidden_channels": COUNT, "num_heads": COUNT, "neighborhood": NEIGHBORHOOD, "norm": FACTORY}),
    "SteerableTransformer": (ea.SteerableTransformer, {"group": "SO2", "channels": 4, "depth": 1}, {**logits, **image}),
    "SteerableFieldTransformer": (ea.SteerableFieldTransformer, {"group": "SO2", "out_fields": 1, "channels": 4, "depth": 1}, {**fields, **image}),
    "SteerablePointTransformer": (ea.SteerablePointTransformer, {"group": "SO2", "out_fields": 1, "channels": 4, "depth": 1}, fields),
    "SteerablePointClassifier": (ea.SteerablePointClassifier, {"group": "SO2", "channels": 4, "depth": 1}, logits),
}  # fmt: skip
#: what messages call an argument of another name
ALIASES = {"name": "group"}
#: arguments of which messages show the type, shape or dtype
TENSORS = (
    "batch",
    "context_batch",
    "mask",
    "context_mask",
    "edge_index",
    "quadrature_weights",
    "context_quadrature_weights",
    "coords",
)


def refused(call, argument, value):
    """Whether `call` refuses a value of an argument, and says so."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call(**{argument: value})
    text = str(caught.value)
    names = [*value] if isinstance(value, dict) else [ALIASES.get(argument, argument)]
    parts = [*value.values()] if isinstance(value, dict) else [*value] if isinstance(value, list | tuple) else []
    shown = [repr(value), *map(repr, parts), *([type(value).__name__] if argument in TENSORS else [])]
    assert any(name in text for name in names), f"{argument}={value!r}: {text}"
    assert any(part in text for part in shown), f"{argument}={value!r}: {text}"


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_values_without_sense_are_refused_by_name(name):
    make, good, table = CONSTRUCTORS[name]
    if good is None:
        good, make = {}, lambda modules: ea.SequentialModule(modules)
    for argument, values in table.items():
        for value in values:
            refused(partial(make, **{name: v for name, v in good.items() if name != argument}), argument, value)


def points(field_type, count=6, dtype=torch.float32):
    return GeometricTensor(torch.randn(count, field_type.size, dtype=dtype), field_type, torch.randn(count, 2, dtype=dtype))


@pytest.mark.parametrize("integer", [np.int64, np.int32, torch.tensor])
def test_integers_of_numpy_and_torch_are_integers(integer):
    assert ea.fourier_type(SO2, integer(4), integer(2)) == T
    attention = ea.SteerableSelfAttention(T, num_heads=integer(2), head_channels=integer(4), max_frequency=integer(1))
    assert attention(points(T)).shape == (6, 20)
    assert ea.KNearest(integer(3)) == ea.KNearest(3)
    assert len(ea.SteerableTransformer("C4", channels=integer(2), depth=integer(1), num_classes=integer(3)).blocks.layers) == 2
    assert ea.Grid(integer(2), integer(3), spacing=np.float32(0.5)).positions.shape == (1, 6, 2)


def test_what_was_chosen_cannot_be_changed_without_effect():
    position = ea.SteerableSelfAttention(T, num_heads=2).position
    with pytest.raises(AttributeError):
        position.wavelengths = (1.0, 2.0)
    attention = ea.SteerableSelfAttention(T, num_heads=2)
    attention.position.max_distance = 0.1
    with pytest.raises(ValueError, match=r"max_distance is 0\.1"):
        attention(points(T))


def test_a_factory_that_makes_something_else_is_refused():
    with pytest.raises(TypeError, match=r"position must be of type PositionEmbedding, got"):
        ea.SteerableSelfAttention(T, num_heads=2, position=lambda *_: 2)
    with pytest.raises(TypeError, match=r"feedforward: expected a layer on tokens, .* got 2"):
        ea.steerable_block(T, feedforward=lambda _: 2)
    with pytest.raises(TypeError, match=r"layers: expected a layer on tokens, .* got 2"):
        ea.SteerableTransformer("C4", block=lambda _: 2)
    with pytest.raises(TypeError, match="stem"):
        ea.SteerableTransformer("C4", stem=lambda *_: 2)


DTYPE = ["float32", None, 2]
CHECKER = {"size": [*COUNT, 0], "batch": SIZE, "seed": SIZE, "dtype": DTYPE, "domain": ["image", None, 3, "points, grid"]}


@pytest.mark.parametrize("argument", CHECKER)
def test_options_of_the_checker(argument):
    for value in CHECKER[argument]:
        for check in (equivariance_error, assert_equivariant):
            refused(partial(check, linear), argument, value)


@pytest.mark.parametrize("tolerance", [v for v in POSITIVE if v is not None])
def test_tolerances_of_the_checker(tolerance):
    refused(partial(assert_equivariant, linear), "tolerance", tolerance)
    refused(linear.check_equivariance, "rtol", tolerance)
