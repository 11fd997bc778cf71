"""Functions on samples of the group, times phases, and back."""

import pytest
import torch

from escnn_attn.fields import fourier_type, planar_gspace
from escnn_attn.functional import decode_functions, encode_functions
from escnn_attn.functional.encoding import _decoded, _encoded
from escnn_attn.nn.position._rotation import PlanarFunctions, rotations, sampled_wave
from tests.helpers import relative

TURNED = (True, False)


def tables(pairs: int, rotated: int, dtype=torch.float64):
    """Rotations of two groups, of two heads and one, at 5 positions, with waves of 8 and 12 samples."""
    functions = PlanarFunctions.of(fourier_type(planar_gspace("SO2"), 2 * pairs, 2))
    waves = tuple((index, 0.5 + index, 8 + 4 * (index % 2)) for index in range(2 * rotated))
    x = torch.randn(1, 5, 2, dtype=dtype)
    return functions, x, rotations(functions, pairs, (waves[:rotated], waves[rotated:]), (2, 1), x)


def coefficients(pairs: int, dtype=torch.float64, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 5, 5, 2, 3, 2 * pairs, dtype=dtype, requires_grad=True)  # b t r k h c


@pytest.mark.parametrize(("pairs", "rotated"), [(2, 2), (3, 1), (8, 5), (8, 1), (14, 3)])
def test_one_call_is_the_formula_pair_by_pair(pairs, rotated):
    """$e^{i\\theta}$ times the samples of each rotated pair, and the coefficients of the others."""
    functions, x, made = tables(pairs, rotated)
    coefs = coefficients(pairs)
    encoded = encode_functions(coefs, made, TURNED)
    z = torch.complex(*coefs.unflatten(-1, (2, pairs)).permute(5, 3, 0, 4, 1, 6, 2))  # k b h t p r
    for group, rotation in enumerate(made):
        expected = []
        for values, turned in zip(z[:, :, rotation.heads], TURNED, strict=True):
            parts = list(values.unbind(3))
            for pair in range(rotated):
                wave = group * rotated + pair
                matrix, plane = map(torch.from_numpy, sampled_wave(functions, 0.5 + wave, wave, 8 + 4 * (wave % 2)))
                parts[pair] = parts[pair] @ matrix.T.to(z.dtype)
                parts[pair] = parts[pair] * torch.exp(1j * (x @ plane.T))[:, None] if turned else parts[pair]
            expected.append(torch.cat(parts, dim=-1))
        first, second = encoded[2 * group : 2 * group + 2]  # the order inside a head is free, inner products are not
        assert relative(first @ second.mT, (expected[0] @ expected[1].mH).real) < 1e-12


@pytest.mark.parametrize(("pairs", "rotated"), [(3, 1), (8, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_decoding_is_the_transpose_and_both_are_what_compilers_see(pairs, rotated, dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    _, _, made = tables(pairs, rotated, wide)
    coefs = coefficients(pairs, dtype)
    encoded = encode_functions(coefs, made, TURNED)
    for found, plain in zip(encoded, _encoded(coefs, made, TURNED), strict=True):
        assert found.dtype == dtype
        assert relative(found.to(wide), plain.to(wide)) < tolerance
    grads = [torch.randn_like(part) for part in encoded]
    (by_coefs,) = torch.autograd.grad(encoded, coefs, grads)
    decoded = decode_functions(grads, made, TURNED, coefs.shape[2])
    assert decoded.shape == coefs.shape
    assert relative(by_coefs.to(wide), decoded.to(wide)) < tolerance
    assert relative(_decoded(grads, made, TURNED, coefs.shape[2]).to(wide), decoded.to(wide)) < tolerance
    back = decode_functions(encoded, made, TURNED, coefs.shape[2])  # more than 2 L samples: nothing is lost
    assert relative(back.to(wide), coefs.to(wide)) < tolerance


def test_gradients_of_gradients():
    _, _, made = tables(2, 1)
    coefs = coefficients(2, batch=1)
    assert torch.autograd.gradgradcheck(lambda x: encode_functions(x, made, TURNED), coefs, fast_mode=True)
    encoded = [part.detach().requires_grad_() for part in encode_functions(coefs, made, TURNED)]
    assert torch.autograd.gradcheck(lambda *p: decode_functions(p, made, TURNED, coefs.shape[2]), encoded, fast_mode=True)


def test_strides_that_are_no_complex_numbers():
    """Gradients may be expanded, or cut out of wider tensors."""
    _, _, made = tables(3, 2)
    coefs = coefficients(3)
    encoded = encode_functions(coefs, made, TURNED)
    grads = [torch.ones(()).double().expand(part.shape) for part in encoded]
    odd = [torch.ones(*part.shape[:-1], part.shape[-1] + 1).double()[..., 1:] for part in encoded]
    expected = decode_functions([torch.ones_like(part) for part in encoded], made, TURNED, coefs.shape[2])
    for ones in (grads, odd):
        assert relative(torch.autograd.grad(encoded, coefs, ones, retain_graph=True)[0], expected) < 1e-12
