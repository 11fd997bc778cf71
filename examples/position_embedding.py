"""A position embedding of your own, in both ways there are.

You will learn to write one as a bias of the logits, which may depend on distances alone, and one as an encoding, which puts positions
into queries, keys and values. Both are checked for equivariance under rotations. The task shows what the second way can do that the
first cannot: each point, of which all know one number alone, is to point to the marked one.
"""

from functools import partial

import torch
from escnn.nn import FieldType
from torch import Tensor, nn

import escnn_attn as ea
from escnn_attn.tokens import Domain


class PlanarALiBi(ea.PositionEmbedding):
    """A bias: logits fall with distance, by a fixed slope for each head (Press et al., 2022, in the plane)."""

    def bias(self, x_query: Tensor, x_key: Tensor) -> Tensor:
        slopes = 2.0 ** -torch.arange(1, self.num_heads + 1, dtype=x_query.dtype, device=x_query.device)
        distances = (x_query[:, :, None] - x_key[:, None]).norm(dim=-1)  # torch.cdist rounds that of a point to itself
        return -slopes[:, None, None] * distances[:, None]


class Pointers(ea.PositionEmbedding):
    """An encoding: beside the values attention averages where they come from, and adds it, seen from the query, as a vector."""

    def __init__(self, head_type: FieldType, num_heads: int) -> None:
        super().__init__(head_type, num_heads)
        self.weight = nn.Parameter(torch.randn(num_heads, 1, self.channels, 1))

    def at(self, query: Domain, key: Domain, distances: object = None) -> ea.Encoding:
        return PointerEncoding(self, query.positions, key.positions)


class PointerEncoding(ea.Encoding):
    """Queries and keys get two zeros, which leave logits as they are; values get the two coordinates of their position."""

    def __init__(self, embedding: Pointers, x_query: Tensor, x_key: Tensor) -> None:
        super().__init__(embedding)
        self.weight, self.x_query, self.x_key = embedding.weight, x_query, x_key  # positions (b or 1, t, 2) and (b or 1, s, 2)

    def encode_query(self, q: Tensor) -> Tensor:
        return widened(q, torch.zeros_like(self.x_query))

    def encode_key(self, k: Tensor) -> Tensor:
        return widened(k, torch.zeros_like(self.x_key))

    def encode_value(self, v: Tensor) -> Tensor:
        return widened(v, self.x_key)

    def decode(self, out: Tensor) -> Tensor:
        offset = (
            out[..., None, -2:] - self.x_query[:, None, :, None]
        )  # from the query to where attention looks: (b, h, t, 1, 2)
        functions = super().decode(out[..., :-2])  # (b, h, t, c, r), and the coefficients 1 and 2 turn as positions do
        vectors = functions[..., 1:3] + self.weight * offset
        return torch.cat([functions[..., :1], vectors, functions[..., 3:]], dim=-1)


def widened(functions: Tensor, extra: Tensor) -> Tensor:
    """Functions (b, h, t, c, r) as rows (b, h, t, c·r + 2), the last two from (b or 1, t, 2)."""
    rows = functions.flatten(-2)
    return torch.cat([rows, extra[:, None].to(rows.dtype).expand(*rows.shape[:-1], 2)], dim=-1)


def train(position: type[ea.PositionEmbedding], steps: int) -> float:
    """Relative error of vectors from each of 8 points to the marked one, after training."""
    torch.manual_seed(0)
    sizes = {"channels": 4, "max_frequency": 1, "depth": 2}
    block = partial(ea.steerable_block, num_heads=2, position=position)
    network = ea.SteerablePointTransformer("SO2", in_type=1, out_fields={"vectors": 1}, block=block, **sizes)
    optimizer, batch = torch.optim.Adam(network.parameters(), lr=1e-2), torch.arange(32).repeat_interleave(8)
    error = torch.tensor(1.0)
    for _ in range(steps):
        positions, marks = torch.randn(32, 8, 2), torch.eye(8)[torch.randint(8, (32,))]
        to_mark = ((marks[..., None] * positions).sum(dim=1, keepdim=True) - positions).flatten(0, 1)
        found = network(network.in_type(marks.view(-1, 1), positions.flatten(0, 1)), batch=batch).tensor
        error = (found - to_mark).square().mean() / to_mark.square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return error.item()


def main(steps: int = 150) -> dict[str, float]:
    fields, errors = ea.fourier_type(ea.planar_gspace("SO2"), channels=4, max_frequency=1), {}
    for position in (PlanarALiBi, Pointers):
        attention = ea.SteerableSelfAttention(fields, num_heads=2, position=position)
        worst = max(error for _, error in ea.testing.assert_equivariant(attention, domain="points"))
        errors[position.__name__] = train(position, steps)
        print(f"{position.__name__:12} equivariant to {worst:.0e}, relative error {errors[position.__name__]:.3f}")
    return errors


if __name__ == "__main__":
    main()
