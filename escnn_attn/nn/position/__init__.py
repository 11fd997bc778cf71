"""Position embeddings."""

from escnn_attn.nn.position.biases import DistanceBias, RadialBias
from escnn_attn.nn.position.embedding import Encoding, NoPosition, PositionEmbedding, PositionFactory
from escnn_attn.nn.position.rotary import QueryKeyRotaryEmbedding, RotaryEmbedding
