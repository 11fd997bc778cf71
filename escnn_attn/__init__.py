"""Steerable self-attention for escnn: equivariant transformers for SO(2), O(2), C_N and D_N."""

from escnn_attn import compat  # noqa: F401, I001  (first: it guards the import of escnn)
from escnn_attn import testing
from escnn_attn.nn.attention.steerable import SteerableCrossAttention, SteerableSelfAttention
from escnn_attn.nn.modules import SequentialModule, TokenModule
from escnn_attn.nn.position.biases import DistanceBias, RadialBias
from escnn_attn.nn.feedforward import BilinearFeedForward, FourierFeedForward, GatedFeedForward
from escnn_attn.fields.types import IsotypicLayout, field_type, fourier_type, planar_gspace
from escnn_attn.nn.attention.group import GroupSelfAttention, LiftingSelfAttention
from escnn_attn.nn.linear import SteerableLinear
from escnn_attn.models.factories import group_block, steerable_block
from escnn_attn.models.transformer import SteerableTransformer
from escnn_attn.nn.neighborhood.neighborhoods import Disc, KNearest, Neighborhood
from escnn_attn.nn.nonlinearity import FourierGELU
from escnn_attn.nn.norm import SteerableRMSNorm
from escnn_attn.nn.pooling import InvariantPooling
from escnn_attn.nn.position.rotary import NoPosition, PositionEmbedding, QueryKeyRotaryEmbedding, RotaryEmbedding
from escnn_attn.models.stems import convolution_stem, lifting_stem
from escnn_attn.tokens.tokens import Tokens
from escnn_attn.models.blocks import SteerableStack, SteerableTransformerBlock
from escnn_attn._version import __version__


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
    "planar_gspace",
    "steerable_block",
    "testing",
]
