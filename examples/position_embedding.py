"""A position embedding of your own, in both ways there are.

You will learn to write one as a bias of the logits, which may depend on distances alone, and one as an encoding of queries, keys and
values. Both are checked under rotations. The task shows what only the second can do: each point is to point to the marked one.
"""

from functools import partial

import escnn_attn as ea
from escnn_attn.tokens import Domain

import torch
from escnn.nn import FieldType
from torch import Tensor, nn


class PlanarALiBi(ea.PositionEmbedding):
    """A bias: logits fall with distance, by a fixed slope for each head (Press et al., 2022, in the plane)."""

    def bias(self, x_query: Tensor, x_key: Tensor) -> Tensor:
        distances = (x_query[:, :, None] - x_key[:, None]).norm(dim=-1)  # torch.cdist rounds that of a point to itself
        return torch.stack([-distances / 2**head for head in range(1, self.num_heads + 1)], dim=1)


class Pointers(ea.PositionEmbedding):
    """An encoding: attention also averages where values come from, and adds it, seen from the query, as a vector."""

    def __init__(self, head_type: FieldType, num_heads: int) -> None:
        super().__init__(head_type, num_heads)
        self.weight = nn.Parameter(torch.randn(num_heads, 1, self.channels, 1))

    def at(self, query: Domain, key: Domain, distances: object = None) -> ea.Encoding:
        return PointerEncoding(self, query.positions, key.positions)


class PointerEncoding(ea.Encoding):
    """Queries and keys get two zeros, which leave logits as they are; values get the coordinates of their position."""

    def __init__(self, embedding: Pointers, x_query: Tensor, x_key: Tensor) -> None:
        super().__init__(embedding)
        self.weight, self.x_query, self.x_key = embedding.weight, x_query, x_key  # (b or 1, t, 2) and (b or 1, s, 2)

    def encode_query(self, q: Tensor) -> Tensor:
        return widened(q, q.new_zeros(1, 1, 2))

    def encode_key(self, k: Tensor) -> Tensor:
        return widened(k, k.new_zeros(1, 1, 2))

    def encode_value(self, v: Tensor) -> Tensor:
        return widened(v, self.x_key)

    def decode(self, out: Tensor) -> Tensor:
        offset = out[..., None, -2:] - self.x_query[:, None, :, None]  # from each query to where it looks, (b, h, t, 1, 2)
        vectors = nn.functional.pad(offset, (1, self.embedding.coefficients - 3))  # frequency 1 turns as positions do
        return super().decode(out[..., :-2]) + self.weight * vectors  # (b, h, t, c, r)


def widened(functions: Tensor, extra: Tensor) -> Tensor:
    return torch.cat([functions.flatten(-2), extra[:, None].to(functions.dtype).expand(*functions.shape[:3], 2)], dim=-1)


def train(position: type[ea.PositionEmbedding], steps: int) -> tuple[ea.SteerablePointTransformer, float]:
    """A network that points from each of 8 points to the marked one, and its relative error."""
    torch.manual_seed(0)
    sizes = {"channels": 4, "max_frequency": 1, "block": partial(ea.steerable_block, num_heads=2, position=position)}
    network = ea.SteerablePointTransformer("SO2", in_type=1, out_fields={"vectors": 1}, depth=2, **sizes)
    optimizer, error = torch.optim.Adam(network.parameters(), lr=1e-2), torch.ones(())
    for _ in range(steps):
        positions, marks = torch.randn(32, 8, 2), torch.eye(8)[torch.randint(8, (32,))]
        to_mark = ((marks[..., None] * positions).sum(dim=1, keepdim=True) - positions).flatten(0, 1)
        found = network(network.in_type(marks.view(-1, 1), positions.flatten(0, 1)), batch=torch.arange(256) // 8).tensor
        error = (found - to_mark).square().mean() / to_mark.square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return network, error.item()


def main(steps: int = 150) -> dict[str, float]:
    errors = {}
    for name, position in (("PlanarALiBi", PlanarALiBi), ("Pointers", Pointers)):
        network, errors[name] = train(position, steps)
        attention = next(layer for layer in network.modules() if isinstance(layer, ea.SteerableSelfAttention))
        worst = max(error for _, error in ea.testing.equivariance_error(attention, domain="points"))
        print(f"{name:12} equivariant to {worst:.0e}, relative error {errors[name]:.3f} of the vectors")
    return errors


if __name__ == "__main__":
    main()
