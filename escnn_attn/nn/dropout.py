"""Equivariant dropout: of whole fields, and of whole branches per sample."""

from escnn.nn import FieldType
from torch import nn

from escnn_attn.arguments import require_share
from escnn_attn.fields import ExactBuffer
from escnn_attn.tokens import Tokens


class SteerableDropout(nn.Module):
    """Drops whole fields of tokens in training, so that dropping commutes with the group.

    Unlike `escnn.nn.FieldDropout` it acts on isotypic features, and draws for each token.

    Args:
        field_type: type of the tokens.
        p: probability of dropping a field, in [0, 1).
    """

    def __init__(self, field_type: FieldType, p: float) -> None:
        super().__init__()
        self.p = require_share("dropout", p)
        fields: dict[tuple, list[int]] = {}
        for index, rho in enumerate(field_type.representations):
            for irrep in rho.irreps:
                fields.setdefault(irrep, []).append(index)
        self.count = len(field_type)
        #: of each irrep, the field of each copy
        self.fields = nn.ModuleList(ExactBuffer(copies) for copies in fields.values())

    def forward(self, tokens: Tokens) -> Tokens:
        if not self.training or self.p == 0:
            return tokens
        like = tokens.features[0]
        keep = like.new_empty(*like.shape[1:3], self.count).bernoulli_(1 - self.p) / (1 - self.p)
        kept = [keep.index_select(2, copies.like(keep)) for copies in self.fields if isinstance(copies, ExactBuffer)]
        return tokens.with_features(tuple(f * k for f, k in zip(tokens.features, kept, strict=True)))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class DropPath(nn.Module):
    """Zeroes the tokens of a whole sample in training, and scales up the others: stochastic depth.

    Args:
        p: probability of zeroing a sample, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = require_share("drop_path", p)

    def forward(self, tokens: Tokens) -> Tokens:
        if not self.training or self.p == 0:
            return tokens
        like = tokens.features[0]
        keep = like.new_empty(like.shape[1], 1, 1).bernoulli_(1 - self.p) / (1 - self.p)
        return tokens.with_features(tuple(f * keep for f in tokens.features))

    def extra_repr(self) -> str:
        return f"p={self.p}"
