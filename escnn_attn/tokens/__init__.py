"""Where tokens are (`Grid` and `Clouds`), and their features (`Tokens`)."""

from escnn_attn.tokens._checks import (
    require_dtype,
    require_grid,
    require_input,
    require_no_options,
    require_tensor,
    require_type,
)
from escnn_attn.tokens._ragged import in_similar_sizes
from escnn_attn.tokens.clouds import Clouds, PaddedClouds
from escnn_attn.tokens.domain import Domain, DomainOptions, diameter, known, span
from escnn_attn.tokens.graphs import geometric
from escnn_attn.tokens.grid import Grid
from escnn_attn.tokens.lattice import Lattice, constants, lattice_positions, positions_tensor
from escnn_attn.tokens.periodic import Surroundings, surrounded
from escnn_attn.tokens.tokens import Tokens, domain_of, grid_of
