"""Steerable self-attention for escnn: equivariant transformers for SO(2), O(2), C_N and D_N."""

from escnn_attn import compat  # noqa: F401, I001  (first: it guards the import of escnn)
from escnn_attn import memory, testing
from escnn_attn.attention import SteerableCrossAttention, SteerableSelfAttention
from escnn_attn.base import SequentialModule, TokenModule
from escnn_attn.biases import DistanceBias, RadialBias
from escnn_attn.feedforward import BilinearFeedForward, FourierFeedForward, GatedFeedForward
from escnn_attn.fields import IsotypicLayout, field_type, fourier_type, planar_gspace
from escnn_attn.group_attention import GroupSelfAttention, LiftingSelfAttention
from escnn_attn.linear import SteerableLinear
from escnn_attn.blocks import group_block, steerable_block
from escnn_attn.models import SteerableTransformer
from escnn_attn.neighborhoods import Disc, KNearest, Neighborhood
from escnn_attn.nonlinearity import FourierGELU
from escnn_attn.norm import SteerableRMSNorm
from escnn_attn.pooling import InvariantPooling
from escnn_attn.positions import NoPosition, PositionEmbedding, QueryKeyRotaryEmbedding, RotaryEmbedding
from escnn_attn.stems import convolution_stem, lifting_stem
from escnn_attn.tokens import Tokens
from escnn_attn.transformer import SteerableStack, SteerableTransformerBlock
from escnn_attn.version import __version__


__all__ = [
    "BilinearFeedForward",
    "Disc",
    "DistanceBias",
    "FourierFeedForward",
    "FourierGELU",
    "GatedFeedForward",
    "GroupSelfAttention",
    "InvariantPooling",
    "IsotypicLayout",
    "KNearest",
    "LiftingSelfAttention",
    "Neighborhood",
    "NoPosition",
    "PositionEmbedding",
    "QueryKeyRotaryEmbedding",
    "RadialBias",
    "RotaryEmbedding",
    "SequentialModule",
    "SteerableCrossAttention",
    "SteerableLinear",
    "SteerableRMSNorm",
    "SteerableSelfAttention",
    "SteerableStack",
    "SteerableTransformer",
    "SteerableTransformerBlock",
    "TokenModule",
    "Tokens",
    "__version__",
    "convolution_stem",
    "field_type",
    "fourier_type",
    "group_block",
    "lifting_stem",
    "memory",
    "planar_gspace",
    "steerable_block",
    "testing",
]
