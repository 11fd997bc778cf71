"""Attention weights and vector fields of a block of a network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from escnn_attn.models import SteerableTransformer, SteerableTransformerBlock
from escnn_attn.nn import SteerableSelfAttention
from escnn_attn.tokens.windows import stride_of


@dataclass(frozen=True)
class AttentionMap:
    """Attention weights and vector fields of one block, for images.

    Attributes:
        positions: (t, 2) positions of the tokens, in pixels from the center, x to the right and y up.
        weights: (b, h, t) attention weights of the query nearest to the center, averaged over queries at equal distance.
        fields: (b, t, m, 2) vector fields of the output.
    """

    positions: Tensor
    weights: Tensor
    fields: Tensor


@torch.no_grad()
def attention_map(network: SteerableTransformer, images: Tensor, block: int = -1) -> AttentionMap:
    """Computes the attention weights of a block and the vector fields of its output, for images (b, c, height, width).

    Args:
        network: on SO(2), where a vector is the irrep of frequency 1.
        images: input of the network.
        block: index of the block.

    Raises:
        ValueError: if the network has no such block, or no vector fields.
    """
    blocks = [layer for layer in network.blocks.layers if isinstance(layer, SteerableTransformerBlock)]
    if not -len(blocks) <= block < len(blocks):
        raise ValueError(f"expected one of {len(blocks)} blocks, got {block}")
    irreps = network.blocks.in_layout.irreps.ids
    if (1,) not in irreps:
        raise ValueError(f"expected a network on SO(2) with vector fields, got one on {network.in_type.gspace}")
    tokens = network.embed(images)
    for before in blocks[: block % len(blocks)]:
        tokens = before(tokens)
    chosen = blocks[block]
    attention = chosen.attention
    assert isinstance(attention, SteerableSelfAttention)
    normed = chosen.attention_norm(tokens)
    weights = attention.token_weights(normed, normed)
    positions = tokens.domain.positions[0]
    distance = positions.norm(dim=-1)
    central = distance < distance.min() + 1e-3
    vectors = chosen(tokens).features[irreps.index((1,))]
    pixels = stride_of(network.windows) / network.spacing * positions
    return AttentionMap(pixels, weights[:, :, central].mean(dim=2), vectors.permute(1, 2, 3, 0))
