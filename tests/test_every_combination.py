"""Attention for every group, type, domain, neighborhood and position embedding: one property, in every combination."""

from functools import cache, partial
from itertools import combinations, product

import numpy as np
import pytest
import torch
from escnn.gspaces import GSpace2D, flip2dOnR2, flipRot2dOnR2
from escnn.nn import FieldType

from escnn_attn import Disc, SteerableCrossAttention, SteerableSelfAttention, planar_gspace
from escnn_attn.fields.types import spectral_representation
from escnn_attn.testing import equivariance_error, random_elements
from tests.helpers import POSITIONS, mixed_type, worst

TOLERANCE = 1e-6
NAMES = ["trivial", *(f"C{n}" for n in (1, 2, 3, 4, 5, 7, 8, 13, 16)), *(f"D{n}" for n in (1, 2, 3, 4, 5, 8)), "SO2", "O2"]
SPACES = {
    **{name: partial(planar_gspace, name) for name in NAMES},
    "flip at 0.7": lambda: flip2dOnR2(axis=0.7),
    "D4 at 0.3": lambda: flipRot2dOnR2(4, axis=0.3),
    "O2 at 1.1": lambda: flipRot2dOnR2(-1, axis=1.1),
    "O2 to C4": lambda: flipRot2dOnR2(-1).restrict((None, 4))[0],
    "O2 to D6": lambda: flipRot2dOnR2(-1).restrict((0.4, 6))[0],
    "O2 to SO2": lambda: flipRot2dOnR2(-1).restrict((None, -1))[0],
    "D8 to flip": lambda: flipRot2dOnR2(8).restrict((1, 1))[0],
}
TYPES = ["trivial", "irrep", "band-limited", "regular", "quotient", "induced", "mixed"]
CASES = [
    case
    for case in product(SPACES, TYPES, ["grid", "points"], ["global", "disc"], ["self", "cross"], POSITIONS)
    if not (case[0] in ("SO2", "O2", "O2 at 1.1", "O2 to SO2") and case[1] in ("regular", "quotient", "induced"))
]
EVERY = 7  # with the number of cases of each kind coprime, each value meets each other one


@cache
def space(name: str) -> GSpace2D:
    return SPACES[name]()


@cache
def field_type(name: str, kind: str) -> FieldType:
    gspace = space(name)
    group = gspace.fibergroup
    if kind == "mixed":
        return mixed_type(gspace)
    if kind == "trivial":
        return FieldType(gspace, [gspace.trivial_repr] * 3)
    if kind == "irrep":
        last = group.irrep(*group.bl_irreps(2)[-1]) if group.continuous else group.irreps()[-1]
        return FieldType(gspace, [last] * 2)
    if kind == "band-limited":
        return FieldType(gspace, [spectral_representation(group, 2), spectral_representation(group, 1)])
    if kind == "regular":
        return FieldType(gspace, [group.regular_representation] * 2)
    dihedral = group.name.startswith("D")
    whole = (0, group.rotation_order) if dihedral else group.order()
    half = (0, 1) if dihedral else 2 - group.order() % 2
    if kind == "quotient":
        return FieldType(gspace, [group.quotient_representation(half), group.quotient_representation(whole)])
    subgroup = group.subgroup(half)[0]
    return FieldType(gspace, [group.induced_representation(half, subgroup.irreps()[-1]), group.irreps()[-1]])


@pytest.mark.parametrize(
    "case", [pytest.param(c, id="-".join(c), marks=() if i % EVERY == 0 else pytest.mark.slow) for i, c in enumerate(CASES)]
)
def test_equivariant(case):
    name, kind, domain, reach, form, embedding = case
    t, other = field_type(name, kind), field_type(name, "mixed")
    rotary = "rotary" in embedding
    options = {
        "num_heads": 1,
        "head_channels": 2,
        "position": partial(POSITIONS[embedding], tolerance=TOLERANCE) if rotary else POSITIONS[embedding],
        "neighborhood": None if reach == "global" else Disc(2.0),
    }
    attention = SteerableSelfAttention if form == "self" else SteerableCrossAttention
    module = attention(t, other, **options)
    for parameter in module.position.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    elements = random_elements(t.fibergroup, 2, np.random.default_rng(0))[-3:] if domain == "points" else None
    # rounding of float64, in the smallest field of the smallest token: 1.3e-10 is the largest seen
    bound = 10 * TOLERANCE if rotary and domain == "points" and t.fibergroup.continuous else 1e-9
    assert worst(equivariance_error(module, domain=domain, size=4 if domain == "points" else 5, elements=elements)) <= bound


def test_the_fast_part_covers_every_pair():
    """What runs every time pairs each value with each value of another kind, as far as they can be combined."""
    fast = CASES[::EVERY]
    for i, j in combinations(range(6), 2):
        assert {(c[i], c[j]) for c in fast} == {(c[i], c[j]) for c in CASES}
