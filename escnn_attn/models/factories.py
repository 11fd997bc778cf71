"""Factories of transformer blocks, from a type and plain numbers: the argument `block` of networks."""

from collections.abc import Callable

from escnn.nn import FieldType

from escnn_attn.arguments import require_factory
from escnn_attn.fields import require_planar
from escnn_attn.models.block import SteerableTransformerBlock
from escnn_attn.nn.attention import GroupSelfAttention, SteerableSelfAttention
from escnn_attn.nn.feedforward import BilinearFeedForward, FourierFeedForward
from escnn_attn.nn.modules import TokenModule
from escnn_attn.nn.neighborhood import Neighborhood
from escnn_attn.nn.position import PositionFactory, RotaryEmbedding


def steerable_block(
    field_type: FieldType,
    *,
    num_heads: int = 4,
    feedforward: Callable[[FieldType], TokenModule] = BilinearFeedForward,
    position: PositionFactory = RotaryEmbedding,
    neighborhood: Neighborhood | None = None,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> SteerableTransformerBlock:
    """A pre-norm block of self-attention and the given feed-forward layer.

    Args:
        field_type: of the tokens.
        num_heads: number of heads.
        feedforward: makes the feed-forward layer of the type.
        position: makes the position embedding (see `SteerableSelfAttention`).
        neighborhood: the tokens that a token attends to; None for all.
        dropout: probability of dropping a field of the attention's output.
        drop_path: probability of skipping a branch, for each sample.

    Examples:
        >>> from escnn_attn import GatedFeedForward, fourier_type, planar_gspace, steerable_block
        >>> block = steerable_block(fourier_type(planar_gspace("O2"), 4, 2), num_heads=2, feedforward=GatedFeedForward)
        >>> block.attention.num_heads
        2
    """
    require_planar(field_type, "field_type")
    attention = SteerableSelfAttention(
        field_type, num_heads=num_heads, position=position, neighborhood=neighborhood, dropout=dropout
    )
    made = require_factory("feedforward", feedforward, "TokenModule")(field_type)
    return SteerableTransformerBlock(attention, made, drop_path=drop_path)


def group_block(
    field_type: FieldType,
    *,
    num_heads: int = 4,
    feedforward: Callable[[FieldType], TokenModule] = FourierFeedForward,
    neighborhood: Neighborhood | None = None,
    drop_path: float = 0.0,
) -> SteerableTransformerBlock:
    """A pre-norm block of group self-attention (Romero & Cordonnier, 2021) and the given feed-forward layer.

    Args:
        field_type: of the tokens, copies of the regular representation of a finite group.
        num_heads: number of heads.
        feedforward: makes the feed-forward layer of the type.
        neighborhood: the tokens that a token attends to; None for all.
        drop_path: probability of skipping a branch, for each sample.

    Examples:
        >>> from escnn_attn import fourier_type, group_block, planar_gspace
        >>> group_block(fourier_type(planar_gspace("C4"), 4), num_heads=2).attention.num_heads
        2
    """
    require_planar(field_type, "field_type")
    attention = GroupSelfAttention(field_type, num_heads=num_heads, neighborhood=neighborhood)
    made = require_factory("feedforward", feedforward, "TokenModule")(field_type)
    return SteerableTransformerBlock(attention, made, drop_path=drop_path)
