"""Neighborhoods: which tokens a token attends to."""

from escnn_attn.nn.neighborhood._between import attention_pattern, attention_patterns, require_neighborhood, surroundings
from escnn_attn.nn.neighborhood._patterns import AttentionPattern
from escnn_attn.nn.neighborhood.neighborhood import Disc, KNearest, Neighborhood
