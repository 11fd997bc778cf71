import escnn.nn
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from escnn.group import so2_group
from scipy.special import jv

from escnn_attn import planar_gspace
from escnn_attn.fields import ExactBuffer
from escnn_attn.fields.functions import (
    band_limited_irreps,
    bessel_tail,
    group_samples,
    nonlinearity_samples,
    rotary_samples,
    synthesis_matrix,
)
from escnn_attn.fields.types import spectral_representation
from tests.helpers import GROUPS


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("limit", [1, 3])
def test_synthesis_has_orthonormal_columns(name, limit):
    group = planar_gspace(name).fibergroup
    irreps = band_limited_irreps(group, limit)
    A = synthesis_matrix(group, irreps, group_samples(group, 2 * limit + 1))
    assert A.shape[1] == spectral_representation(group, limit).size
    np.testing.assert_allclose(A.T @ A, np.eye(A.shape[1]), atol=1e-12)


def test_synthesis_needs_more_than_twice_the_band_limit():
    group = so2_group()
    A = synthesis_matrix(group, band_limited_irreps(group, 3), group_samples(group, 6))
    assert not np.allclose(A.T @ A, np.eye(7), atol=1e-2)


@pytest.mark.parametrize("name", ["SO2", "O2"])
def test_synthesis_evaluates_as_escnn_does(name):
    gspace = planar_gspace(name)
    irreps = gspace.fibergroup.bl_irreps(2)
    theirs = escnn.nn.FourierELU(gspace, 1, irreps=irreps, type="regular", N=8).A.double().numpy()
    ours = synthesis_matrix(gspace.fibergroup, irreps, group_samples(gspace.fibergroup, 8))
    scale = theirs[0, 0] / ours[0, 0]
    np.testing.assert_allclose(ours * scale, theirs, atol=1e-6)


@pytest.mark.parametrize("name", ["SO2", "O2", "D4", "C3"])
def test_translating_a_function_shifts_its_samples(name):
    group = planar_gspace(name).fibergroup
    elements = group_samples(group, 8)
    irreps = band_limited_irreps(group, 3 if group.continuous else 1)
    A = synthesis_matrix(group, irreps, elements)
    h, rho = elements[1], spectral_representation(group, 3 if group.continuous else 1)
    inverse = ~h
    shifted = synthesis_matrix(group, irreps, [inverse @ g for g in elements])
    np.testing.assert_allclose(A @ rho(h), shifted, atol=1e-12)


@pytest.mark.parametrize(("argument", "tolerance"), [(0.1, 1e-3), (6.0, 1e-6), (20.0, 1e-9)])
def test_rotary_samples_is_the_smallest_that_will_do(argument, tolerance):
    samples = rotary_samples(2, argument, tolerance)
    assert samples % 4 == 0
    assert sum(abs(jv(m, argument)) for m in range(samples - 4, samples + 200)) < tolerance
    assert samples <= 8 or bessel_tail(argument, samples - 4 - 4) >= tolerance


def test_rotary_samples_says_what_would_do():
    with pytest.raises(ValueError, match="shortest wavelength at least"):
        rotary_samples(3, 2000.0, 1e-3)


def test_nonlinearity_samples_grow_as_the_tolerance_falls():
    counts = [nonlinearity_samples(F.gelu, 3, tolerance) for tolerance in (1e-1, 1e-2, 1e-3, 1e-5)]
    assert counts == sorted(set(counts))
    assert nonlinearity_samples(torch.square, 3, 1e-10) == 12  # band limit 6 is projected exactly by 10 samples


def test_aliasing_that_does_not_end_is_an_error():
    with pytest.raises(ValueError, match="larger tolerance"):
        nonlinearity_samples(torch.sign, 3, 1e-12)


def test_constant_stays_exact_and_out_of_the_state():
    constant = ExactBuffer(np.array([1 / 3]))
    assert constant.value.dtype == torch.float32
    assert constant.half().double().value.item() == 1 / 3
    assert not constant.state_dict()


def test_waves_beyond_any_number_of_samples_are_refused_at_once():
    with pytest.raises(ValueError, match="needs more than 512 rotations"):
        rotary_samples(3, 1e12, 1e-3)
