"""Field types by name, irreps with multiplicities, isotypic coordinates, and functions on the group."""

from escnn_attn.fields.buffers import ExactBuffer
from escnn_attn.fields.functions import group_samples, synthesis_matrix
from escnn_attn.fields.irreps import IrrepId, Irreps
from escnn_attn.fields.layout import Features, IsotypicLayout
from escnn_attn.fields.types import (
    as_field_type,
    field_type,
    fourier_type,
    max_frequency,
    planar_gspace,
    require_planar,
    require_samples,
    require_spectral,
    spectral_representation,
    spectral_type,
)
