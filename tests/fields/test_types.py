import escnn.nn
import numpy as np
import pytest
import torch
from escnn.gspaces import flip2dOnR2, no_base_space
from escnn.nn import FieldType

from escnn_attn import IsotypicLayout, field_type, fourier_type, planar_gspace
from escnn_attn.testing import random_elements
from tests.helpers import GROUPS, mixed_type, relative


@pytest.mark.parametrize("name", ["SO2", "O2"])
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_fourier_type_equals_that_of_escnn(name, limit):
    gspace = planar_gspace(name)
    irreps = gspace.fibergroup.bl_irreps(limit)
    elu = escnn.nn.FourierELU(gspace, 3, irreps=irreps, type="regular", N=12)
    assert fourier_type(gspace, 3, limit) == elu.in_type


def test_fourier_type_of_a_finite_group_is_regular():
    gspace = planar_gspace("D3")
    assert fourier_type(gspace, 2) == FieldType(gspace, [gspace.regular_repr] * 2)
    assert fourier_type(gspace, 2, 0).size == 4


def test_fourier_type_needs_a_band_limit_for_continuous_groups():
    with pytest.raises(ValueError, match="max_frequency is required"):
        fourier_type(planar_gspace("O2"), 2)
    with pytest.raises(ValueError, match="channels must be at least 1"):
        fourier_type(planar_gspace("C4"), 0)


@pytest.mark.parametrize("name", ["SO(2)", "C0", "E2", "c4", "D", ""])
def test_unknown_group_names_are_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match="expected"):
        planar_gspace(name)


@pytest.mark.parametrize("name", GROUPS)
def test_merge_inverts_split(name):
    field_type = mixed_type(name)
    layout = IsotypicLayout(field_type).double()
    x = torch.randn(2, field_type.size, 5, dtype=torch.float64)
    features = layout.split(x)
    assert [f.shape[0] * f.shape[-1] for f in features] == [
        d * m for d, m in zip(layout.irreps.dims, layout.irreps.multiplicities)
    ]
    assert relative(layout.merge(features), x) < 1e-13


@pytest.mark.parametrize("name", GROUPS)
def test_each_isotypic_feature_transforms_by_its_irrep(name, rng):
    field_type = mixed_type(name)
    group = field_type.fibergroup
    layout = IsotypicLayout(field_type).double()
    x = torch.randn(2, field_type.size, 3, dtype=torch.float64)
    for g in random_elements(group, 3, rng):
        moved = layout.split(field_type.transform_fibers(x, g))
        for irrep, before, after in zip(layout.irreps.ids, layout.split(x), moved):
            matrix = torch.as_tensor(group.irrep(*irrep)(g))
            expected = torch.einsum("ij,jbtm->ibtm", matrix, before)
            assert relative(after, expected) < 1e-12


def test_types_off_the_plane_are_refused():
    from escnn_attn import SteerableLinear

    space = no_base_space(planar_gspace("C4").fibergroup)
    with pytest.raises(TypeError, match="on the plane"):
        SteerableLinear(FieldType(space, [space.trivial_repr]), FieldType(space, [space.trivial_repr]))


@pytest.mark.parametrize("space", [*map(planar_gspace, GROUPS), flip2dOnR2()], ids=str)
def test_pseudoscalars_change_sign_under_reflections_alone(space, rng):
    pseudoscalar = field_type(space, scalars=1, pseudoscalars=1).representations[1]
    for g in random_elements(space.fibergroup, 8, rng):
        assert pseudoscalar(g).item() == pytest.approx(np.linalg.det(space.basespace_action(g)))
