"""The formulas of docs/mathematics.md on plain tensors.

Axes: `b` batch, `t` query token, `s` key token, `h` head, `c` channel, `r` coefficient of a function on the group, `n` sample
of the group, `d` component of an irrep, `m` copy of an irrep (multiplicity), `f` rotary frequency, `e` edge.
"""

from escnn_attn.functional.attention import attend, attention_weights, distances, kth_smallest
from escnn_attn.functional.edges import attend_edges, spatial_order
from escnn_attn.functional.encoding import RotaryBlock, Rotation, Rotations, decode_functions, encode_functions
from escnn_attn.functional.invariants import invariants, token_mean
from escnn_attn.functional.norm import rms_norm
from escnn_attn.functional.pointwise import GELU, PRODUCT, Activation, pointwise
from escnn_attn.functional.radial import radial_sum
from escnn_attn.functional.rotary import phases, rotate_pairs
from escnn_attn.functional.schur import GroupFunctions, IsotypicFeatures, LinearPlan, isotypic_linear
from escnn_attn.functional.squares import squares
