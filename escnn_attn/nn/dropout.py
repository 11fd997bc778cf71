"""Dropout of what symmetry allows to drop: whole fields, and whole branches of a sample."""

from escnn.nn import FieldType
from torch import nn

from escnn_attn.tokens.tokens import Tokens


class SteerableDropout(nn.Module):
    """Drops whole fields of tokens, of one type with `IsotypicLayout`, so that dropping commutes with the group.

    Args:
        field_type: type of the tokens.
        probability: of dropping a field.
    """

    def __init__(self, field_type: FieldType, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"dropout must be in [0, 1), got {probability}")
        self.probability = probability
        fields: dict[tuple, list[int]] = {}
        for index, rho in enumerate(field_type.representations):
            for irrep in rho.irreps:
                fields.setdefault(irrep, []).append(index)
        self.count = len(field_type)
        self.fields = list(fields.values())

    def forward(self, tokens: Tokens) -> Tokens:
        if not self.training or self.probability == 0:
            return tokens
        like = tokens.features[0]
        keep = like.new_empty(*like.shape[1:3], self.count).bernoulli_(1 - self.probability) / (1 - self.probability)
        return tokens.with_features(tuple(f * keep[..., i] for f, i in zip(tokens.features, self.fields, strict=True)))

    def extra_repr(self) -> str:
        return f"probability={self.probability}"


class DropPath(nn.Module):
    """Zeroes the tokens of a whole sample with the given probability in training, and scales up the others."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {probability}")
        self.probability = probability

    def forward(self, tokens: Tokens) -> Tokens:
        if not self.training or self.probability == 0:
            return tokens
        like = tokens.features[0]
        keep = like.new_empty(like.shape[1], 1, 1).bernoulli_(1 - self.probability) / (1 - self.probability)
        return tokens.with_features(tuple(f * keep for f in tokens.features))

    def extra_repr(self) -> str:
        return f"probability={self.probability}"
