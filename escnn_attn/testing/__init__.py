"""Measurements of equivariance, for all modules of escnn and of this library.

On point clouds any element of the group acts exactly. On grids only elements that map the pixel lattice to itself do
(quarter turns and axis flips), and only those are used: resampling would hide errors, or invent them.
"""

from escnn_attn.testing.actions import lattice_elements, random_elements, reorder, roll, transform, translate
from escnn_attn.testing.checks import assert_equivariant, check_equivariance, equivariance_error
from escnn_attn.testing.errors import field_error, relative_error
from escnn_attn.testing.tolerances import LARGEST_TOLERANCE, TOLERANCE, Approximate, stated_tolerance

__all__ = [
    "LARGEST_TOLERANCE",
    "TOLERANCE",
    "Approximate",
    "assert_equivariant",
    "check_equivariance",
    "equivariance_error",
    "field_error",
    "lattice_elements",
    "random_elements",
    "relative_error",
    "reorder",
    "roll",
    "stated_tolerance",
    "transform",
    "translate",
]
