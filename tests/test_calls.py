"""Values without sense for each argument of calls: all are refused by name."""

import escnn.nn
import numpy as np
import pytest
import torch

import escnn_attn as ea
from tests.test_arguments import HEAD, INF, NAN, NO_INTEGER, POSITIVE, SO2, T, points


def pixels(field_type, dtype=torch.float32):
    return field_type(torch.randn(2, field_type.size, 5, 5, dtype=dtype))


INDEX = [0, 0, 1, 1, 1, 0]
INDICES = [
    2,
    INDEX,
    torch.tensor(INDEX).int(),
    torch.tensor(INDEX).float(),
    torch.tensor(INDEX[:5]),
    -torch.tensor(INDEX),
    torch.tensor(INDEX) * 10**12,
]
MASKS = [2, [True] * 6, torch.ones(6), torch.ones(5, dtype=torch.bool)]
WEIGHTS = [
    2,
    [1.0] * 6,
    torch.ones(6, dtype=torch.long),
    torch.ones(5),
    -torch.ones(6),
    torch.full((6,), NAN),
    torch.full((6,), INF),
    torch.ones(6) * 1j,
]
EDGES = [2, [[0], [1]], torch.zeros(2, 3, dtype=torch.int32), torch.zeros(3, 2), torch.full((2, 1), 6), torch.full((2, 1), -1)]
SIZES = [*NO_INTEGER, -1, 1, 10**12]
OPTIONS = {"batch": INDICES, "batch_size": SIZES, "mask": MASKS, "quadrature_weights": WEIGHTS, "edge_index": EDGES}
TAKES_POINTS = {
    "attention": ea.SteerableSelfAttention(T, num_heads=2),
    "linear": ea.SteerableLinear(T, T),
    "pooling": ea.InvariantPooling(T),
    "chain": ea.SequentialModule(ea.SteerableRMSNorm(T)),
    "network": ea.SteerablePointClassifier("SO2", in_type=T, channels=4, depth=1),
}


@pytest.mark.parametrize("name", TAKES_POINTS)
def test_calls_without_sense_are_refused_by_name(name):
    module, batch = TAKES_POINTS[name], {"batch": torch.tensor(INDEX)}
    x = points(T)
    module(x, batch=torch.tensor(INDEX), batch_size=np.int64(2))
    for argument, values in OPTIONS.items():
        for value in values:
            good = batch if argument == "batch_size" else {}
            with pytest.raises((TypeError, ValueError), match=argument if argument != "mask" else "mask"):
                module(x, **{**good, argument: value})
    for wrong in (2, None, x.tensor, points(ea.fourier_type(SO2, 3, 2)), [x]):
        with pytest.raises(TypeError, match=r"expected a(n escnn\.nn\.GeometricTensor| geometric tensor) of type"):
            module(wrong)


def test_a_context_without_sense_is_refused_by_name():
    module, x, context = ea.SteerableCrossAttention(T, HEAD, num_heads=2), points(T), points(HEAD)
    for argument, values in {
        "context_batch": INDICES, "context_mask": MASKS, "context_quadrature_weights": WEIGHTS, "edge_index": EDGES,
        "batch": INDICES, "batch_size": [*NO_INTEGER, -1, 2], "mask": MASKS, "spacing": [*POSITIVE, 2.0], "context_spacing": [*POSITIVE, 2.0],
    }.items():  # fmt: skip
        for value in values:
            with pytest.raises((TypeError, ValueError), match=argument.removeprefix("context_")):
                module(x, context, **{argument: value})


@pytest.mark.parametrize("name", TAKES_POINTS)
def test_features_of_another_dtype_are_refused(name):
    module = TAKES_POINTS[name]
    if any(True for _ in module.parameters()):
        with pytest.raises(TypeError, match=r"expected features of torch\.float32, .* got torch\.float64"):
            module(points(T, dtype=torch.float64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(points(T, dtype=torch.bfloat16)) if name in ("linear", "chain") else module(points(T))


def test_features_of_another_dtype_are_refused_at_every_door():
    network = ea.SteerableTransformer("C4", channels=2, depth=1)
    cross = ea.SteerableCrossAttention(T, HEAD, num_heads=2)
    chain = ea.SequentialModule(escnn.nn.R2Conv(T, T, 3))
    for call in (
        lambda: chain(pixels(T, torch.float64)),
        lambda: network(torch.randn(1, 1, 29, 29).double()),
        lambda: cross(points(T), points(HEAD, dtype=torch.float64)),
        lambda: cross.attention_weights(points(T, dtype=torch.float64), points(HEAD)),
        lambda: TAKES_POINTS["attention"].attention_weights(points(T, dtype=torch.float64)),
    ):
        with pytest.raises(TypeError, match=r"expected features of torch\.float32, .* got torch\.float64"):
            call()


@pytest.mark.parametrize(
    "coords", [torch.zeros(6, 2, dtype=torch.cfloat), torch.zeros(6, 2, dtype=torch.bool), torch.full((6, 2), NAN)]
)
def test_positions_without_sense_are_refused(coords):
    with pytest.raises(ValueError, match=r"expected .*coords"):
        ea.Clouds(coords)


def test_a_batch_size_without_batch_is_refused_by_cross_attention():
    cross = ea.SteerableCrossAttention(T, HEAD, num_heads=2)
    with pytest.raises(ValueError, match="batch_size is 2, but there is no batch"):
        cross(points(T), points(HEAD), batch_size=2)


def test_tokens_come_with_their_domain_alone():
    t = ea.fourier_type(ea.planar_gspace("SO2"), 2, 1)
    tokens = ea.Tokens.of(t(torch.randn(1, t.size, 3, 3)), ea.IsotypicLayout(t))
    mask = torch.ones(1, 3, 3, dtype=torch.bool)
    for call in (
        lambda **options: ea.steerable_block(t, num_heads=1)(tokens, **options),
        lambda **options: ea.SteerableCrossAttention(t, t, num_heads=1)(tokens, tokens, **options),
    ):
        call()
        with pytest.raises(TypeError, match=r"expected tokens alone, .* got also mask"):
            call(mask=mask)


def test_the_number_of_samples_of_a_spaced_grid_is_checked():
    attention, x = ea.SteerableCrossAttention(T, T, num_heads=1), T(torch.randn(2, T.size, 3, 3))
    attention(x, x, spacing=2.0, context_spacing=2.0, batch_size=2)
    with pytest.raises(ValueError, match="batch_size is 7, but this grid has 2 samples"):
        attention(x, x, spacing=2.0, context_spacing=2.0, batch_size=7)
