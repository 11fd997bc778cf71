"""Action tokens that look at an image, and are told what to look for: an equivariant robot policy in small.

You will learn cross-attention from points with scalars and vectors, such as a gripper and its velocity, to the fields of an image. A
condition without direction, such as the embedding of a sentence, scales fields and shifts invariants (FiLM), which is equivariant.
The policy brakes a gripper and moves it to a spot or to a ring, as told; where the scene turns, so does the action.
"""

import escnn_attn as ea

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor, nn

Scene = tuple[Tensor, Tensor, Tensor, Tensor]  # images (b, 1, 29, 29), positions, velocities and instructions (b, 2)


class FiLM(nn.Module):
    """Irreps scaled by 1 + γ, the trivial ones shifted by β, both linear in a condition (b, k) (Perez et al., 2018)."""

    def __init__(self, fields: FieldType, condition: int) -> None:
        super().__init__()
        self.fields, self.layout = fields, ea.IsotypicLayout(fields)
        self.copies, self.trivial = self.layout.irreps.multiplicities, self.layout.irreps.trivial
        invariants = self.copies[self.trivial.index(True)]
        self.gamma, self.beta = nn.Linear(condition, sum(self.copies)), nn.Linear(condition, invariants)

    def forward(self, x: GeometricTensor, condition: Tensor) -> GeometricTensor:
        tokens = ea.Tokens.of(x, self.layout)  # features (d, b, t, m) of each irrep, d components of m copies
        gammas, beta = self.gamma(condition)[:, None].split(self.copies, dim=-1), self.beta(condition)[:, None]
        parts = zip(tokens.features, gammas, self.trivial, strict=True)
        features = tuple(f * (1 + gamma) + (beta if trivial else 0) for f, gamma, trivial in parts)
        return tokens.with_features(features).geometric(self.fields, self.layout)


class Policy(nn.Module):
    """Actions (b, 2), vectors: one token for each gripper attends to the image, conditioned fields on 8 × 8 tokens."""

    def __init__(self) -> None:
        super().__init__()
        space = ea.planar_gspace("SO2")
        fields = ea.fourier_type(space, channels=8, max_frequency=2)
        self.image, self.gripper = ea.field_type(space, scalars=1), ea.field_type(space, scalars=1, vectors=1)
        self.stem = ea.convolution_stem(self.image, fields, kernel_sizes=(7, 5), strides=(2, 2))
        self.film, self.look = FiLM(fields, condition=2), ea.steerable_block(fields, num_heads=2)
        self.attend = ea.SteerableCrossAttention(fields, fields, num_heads=2)
        self.think = ea.SteerableStack([ea.SteerableRMSNorm(fields), ea.BilinearFeedForward(fields)])
        vector = ea.field_type(space, vectors=1)
        self.embed, self.act = ea.SteerableLinear(self.gripper, fields), ea.SteerableLinear(fields, vector)

    def forward(self, images: Tensor, positions: Tensor, velocities: Tensor, instructions: Tensor) -> Tensor:
        seen = self.look(self.film(self.stem(self.image(images)), instructions))
        x = self.embed(self.gripper(nn.functional.pad(velocities, (1, 0), value=1.0), positions))  # a one, and the vector
        x = x + self.attend(x, seen, batch=torch.arange(len(images)), context_spacing=4.0)  # 4 pixels from token to token
        return self.act(x + self.think(x)).tensor


def draw(count: int, generator: torch.Generator, degrees: float = 0.0) -> tuple[Scene, Tensor]:
    """Scenes, turned by an angle before they are rendered, and the actions (count, 2) of an expert."""
    turn = (torch.tensor([[0.0, -1.0], [1.0, 0.0]]) * torch.tensor(degrees).deg2rad()).matrix_exp()
    drawn = torch.randn(4, count, 2, generator=generator) @ turn.T
    spot, ring, gripper, velocity = drawn * torch.tensor([4.0, 4.0, 4.0, 0.5]).view(4, 1, 1)  # in pixels, and pixels a step
    to_spot, to_ring = (torch.cdist(place[:, None], ea.Grid(29, 29).positions)[:, 0] for place in (spot, ring))
    images = (-to_spot.square() / 8).exp() + (-(to_ring - 3).square() / 2).exp()
    told = torch.eye(2)[torch.randint(2, (count,), generator=generator)]
    action = (told[:, :1] * spot + told[:, 1:] * ring - gripper) / 4 - velocity
    return (images.view(count, 1, 29, 29), gripper, velocity, told), action


def error(policy: Policy, scene: Scene, action: Tensor) -> Tensor:
    return (policy(*scene) - action).square().mean() / action.square().mean()


def main(steps: int = 200) -> dict[float, float]:
    """Mean square errors on scenes turned by 0, 90 and 45 degrees, relative to the mean square of actions."""
    torch.manual_seed(0)
    policy, generator = Policy(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        error(policy, *draw(64, generator)).backward()
        optimizer.step()
    errors = {}
    for degrees in (0.0, 90.0, 45.0):
        errors[degrees] = error(policy.eval(), *draw(256, torch.Generator().manual_seed(1), degrees)).item()
        print(f"scenes turned by {degrees:2.0f}°: relative error {errors[degrees]:.3f} of actions")
    return errors


if __name__ == "__main__":
    main()
