"""Action tokens that look at an image, and are told what to look for: an equivariant robot policy in small.

You will learn cross-attention from points with scalars and vectors, such as a gripper and its velocity, to the fields of an image. A
condition without direction, such as the embedding of a sentence, scales the fields and shifts the invariants among them (FiLM), which
is equivariant. The policy brakes and moves a gripper to a spot or to a ring, as told; where the scene turns, so does the action.
"""

from functools import partial

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor, nn

import escnn_attn as ea

Scene = tuple[Tensor, Tensor, Tensor, Tensor]  # images (b, 1, 29, 29), positions and velocities (b, 2), instructions (b, 2)


class FiLM(nn.Module):
    """Irreps scaled by 1 + γ, the trivial ones shifted by β, both linear in a condition (b, k) (Perez et al., 2018)."""

    def __init__(self, fields: FieldType, condition: int) -> None:
        super().__init__()
        self.fields, self.layout = fields, ea.IsotypicLayout(fields)
        self.copies, self.trivial = self.layout.irreps.multiplicities, self.layout.irreps.trivial
        self.gamma, self.beta = (nn.Linear(condition, sum(self.copies)) for _ in range(2))

    def forward(self, x: GeometricTensor, condition: Tensor) -> GeometricTensor:
        tokens = ea.Tokens.of(x, self.layout)  # features (d, b, t, m) of each irrep, d components of m copies
        gammas, betas = (part(condition)[:, None].split(self.copies, dim=-1) for part in (self.gamma, self.beta))
        parts = zip(tokens.features, gammas, betas, self.trivial, strict=True)
        features = tuple(f * (1 + gamma) + (beta if trivial else 0) for f, gamma, beta, trivial in parts)
        return tokens.with_features(features).geometric(self.fields, self.layout)


class Policy(nn.Module):
    """The image as fields on 8 × 8 tokens, conditioned; and one action token for each gripper, which attends to them."""

    def __init__(self, group: str = "SO2") -> None:
        super().__init__()
        space = ea.planar_gspace(group)
        fields = ea.fourier_type(space, 8, 2 if space.fibergroup.continuous else None)
        self.image, self.gripper = ea.field_type(space, scalars=1), ea.field_type(space, scalars=1, vectors=1)
        self.stem = ea.convolution_stem(self.image, fields, kernel_sizes=(7, 5), strides=(2, 2))
        self.film, self.look = FiLM(fields, condition=2), ea.steerable_block(fields, num_heads=2)
        self.embed = ea.SteerableLinear(self.gripper, fields)
        position = partial(ea.RotaryEmbedding, rotary_fraction=1.0)
        self.attend = ea.SteerableCrossAttention(fields, fields, num_heads=2, position=position)
        self.think = ea.SteerableStack([ea.SteerableRMSNorm(fields), ea.BilinearFeedForward(fields)])
        self.act = ea.SteerableLinear(fields, ea.field_type(space, vectors=1))

    def forward(self, images: Tensor, positions: Tensor, velocities: Tensor, instructions: Tensor) -> Tensor:
        """Actions (b, 2), vectors."""
        seen = self.look(self.film(self.stem(self.image(images)), instructions))
        states = torch.cat([torch.ones_like(velocities[:, :1]), velocities], dim=1)
        x = self.embed(self.gripper(states, positions))
        each = torch.arange(len(images))  # one gripper for each image; spacing: pixels from token to token
        x = x + self.attend(x, seen, batch=each, context_spacing=4.0)
        return self.act(x + self.think(x)).tensor


def draw(count: int, generator: torch.Generator, degrees: float = 0.0) -> tuple[Scene, Tensor]:
    """Scenes, turned by an angle before they are rendered, and the actions (count, 2) of an expert."""
    angle = torch.tensor(degrees).deg2rad()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    scales = torch.tensor([4.0, 4.0, 4.0, 0.5]).view(4, 1, 1)  # pixels, and pixels a step
    spot, ring, gripper, velocity = scales * torch.randn(4, count, 2, generator=generator) @ turn.T
    told = torch.randint(2, (count,), generator=generator)
    pixels = ea.Grid(29, 29).positions[0]
    to_spot, to_ring = ((pixels - place[:, None]).norm(dim=-1) for place in (spot, ring))
    images = (-to_spot.square() / 8).exp() + (-(to_ring - 3).square() / 2).exp()
    target = torch.where(told[:, None] == 0, spot, ring)
    scene = (images.view(count, 1, 29, 29), gripper, velocity, nn.functional.one_hot(told, 2).float())
    return scene, (target - gripper) / 4 - velocity


def error(policy: Policy, scene: Scene, expert: Tensor) -> Tensor:
    """Mean square error, relative to the mean square of the expert's actions."""
    return (policy(*scene) - expert).square().mean() / expert.square().mean()


def main(steps: int = 200) -> dict[float, float]:
    """Errors on scenes turned by 0, 90 and 45 degrees."""
    torch.manual_seed(0)
    policy, generator = Policy(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(policy.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(steps):
        loss = error(policy, *draw(64, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    errors = {}
    for degrees in (0.0, 90.0, 45.0):
        test = draw(256, torch.Generator().manual_seed(1), degrees)
        with torch.no_grad():
            errors[degrees] = error(policy.eval(), *test).item()
        print(f"scenes turned by {degrees:2.0f}°: relative error {errors[degrees]:.3f} of actions")
    return errors


if __name__ == "__main__":
    main()
