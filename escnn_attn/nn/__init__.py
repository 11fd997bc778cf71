"""Equivariant modules."""

from escnn_attn.nn.attention import GroupSelfAttention, LiftingSelfAttention, SteerableCrossAttention, SteerableSelfAttention
from escnn_attn.nn.context import ContextModule
from escnn_attn.nn.convolution import SteerableConvolution
from escnn_attn.nn.feedforward import BilinearFeedForward, FourierFeedForward, GatedFeedForward
from escnn_attn.nn.linear import SteerableLinear
from escnn_attn.nn.modules import PlanarModule, TokenModule
from escnn_attn.nn.neighborhood import Disc, KNearest, Neighborhood
from escnn_attn.nn.nonlinearity import FourierGELU
from escnn_attn.nn.norm import SteerableBatchNorm, SteerableRMSNorm
from escnn_attn.nn.pooling import InvariantPooling, PoolingModule
from escnn_attn.nn.position import (
    DistanceBias,
    Encoding,
    NoPosition,
    PositionEmbedding,
    QueryKeyRotaryEmbedding,
    RadialBias,
    RotaryEmbedding,
)
from escnn_attn.nn.resampling import AntialiasedPooling, PatchMerging, Upsampling
from escnn_attn.nn.sequential import SequentialModule
