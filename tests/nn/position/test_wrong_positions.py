"""Position embeddings of a user that return what does not fit."""

import pytest
import torch

from escnn_attn import Disc, Encoding, KNearest, PositionEmbedding
from tests.helpers import attention_on, cloud

POINTS, HEADS = 20, 3  # of `cloud` and `attention_on` below


def biased(logits, **options):
    class Own(PositionEmbedding):
        def bias(self, x_query, x_key):
            return logits(x_query, x_key)

    return attention_on("C3", position=Own, **options)


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ((1, HEADS, POINTS, POINTS), True),
        ((HEADS, 1, POINTS), True),
        ((POINTS, POINTS), True),
        ((), True),
        ((1, POINTS, POINTS, HEADS), False),
        ((1, 2, POINTS, POINTS), False),
        ((2, 1, POINTS, POINTS), False),
        ((1, HEADS, POINTS, POINTS, 1), False),
        ((POINTS - 1,), False),
    ],
)
def test_a_bias_has_the_shape_of_logits(shape, fits):
    given = [None, torch.zeros(shape, dtype=torch.float64)]
    module = biased(lambda *_: given[0])
    x = cloud(module.in_type, points=POINTS)
    without, given[0] = module(x).tensor, given[1]
    if fits:
        torch.testing.assert_close(module(x).tensor, without)
        return
    expected = f"expected a bias of Own (b or 1, h or 1, t, s) that broadcasts to (1, {HEADS}, {POINTS}, {POINTS}), got {shape}"
    for call in (module, module.attention_weights):
        with pytest.raises(ValueError) as error:  # noqa: PT011 (compared as a whole)
            call(x)
        assert str(error.value) == expected


@pytest.mark.parametrize("neighborhood", [Disc(1.0), KNearest(3)])
def test_a_bias_of_neighbors_has_the_shape_of_their_logits(neighborhood):
    of_heads_last = biased(lambda q, k: (q[:, :, None] - k[:, None]).norm(dim=-1)[..., None].expand(-1, -1, -1, HEADS))
    of_heads_last.neighborhood = neighborhood
    with pytest.raises(ValueError, match=r"expected a bias of Own \(b or 1, h or 1, t, s\) of \d+ samples that broadcasts to"):
        of_heads_last(cloud(of_heads_last.in_type, points=POINTS))


def test_a_bias_that_takes_samples_for_heads_is_refused():
    module = biased(lambda q, k: -torch.cdist(q, k))
    x = cloud(module.in_type, points=POINTS)
    module(x)
    with pytest.raises(ValueError, match=r"expected a bias of Own .* of 2 samples that broadcasts to .*, got \(2, 10, 10\)"):
        module(x, batch=torch.arange(POINTS) // 10)


def test_a_bias_is_of_floating_point_numbers():
    near = biased(lambda q, k: torch.cdist(q, k) < 1)
    with pytest.raises(TypeError, match=r"expected a bias of Own of floating-point numbers, .*, got torch\.bool"):
        near(cloud(near.in_type))
    array = biased(lambda q, k: torch.cdist(q, k).numpy())
    with pytest.raises(TypeError, match="bias of Own must be of type Tensor, got array"):
        array(cloud(array.in_type))


@pytest.mark.parametrize("method", ["encode_query", "encode_key", "encode_value", "decode"])
def test_an_encoding_of_another_shape_is_refused(method):
    wrong = type("Wrong", (Encoding,), {method: lambda _, x: x})
    own = type("Own", (PositionEmbedding,), {"at": lambda self, *_: wrong(self)})
    module = attention_on("C3", position=own)
    with pytest.raises(ValueError, match=rf"from Wrong\.{method}, got \(1, 3, 25, "):
        module(module.in_type(torch.randn(1, module.in_type.size, 5, 5).double()))


def test_an_embedding_makes_an_encoding():
    own = type("Own", (PositionEmbedding,), {"at": lambda self, *_: None})
    module = attention_on("C3", position=own)
    with pytest.raises(TypeError, match=r"Own\.at\(…\) must be of type Encoding, got None"):
        module(cloud(module.in_type))
