"""Attention layers."""

from escnn_attn.nn.attention.core import SteerableAttention, steerable_attention
from escnn_attn.nn.attention.cross_attention import SteerableCrossAttention
from escnn_attn.nn.attention.group_attention import GroupSelfAttention, LiftingSelfAttention, RegularSelfAttention
from escnn_attn.nn.attention.self_attention import SteerableSelfAttention
