"""Points that carry scalars and vectors, and a vector at each point as output.

You will learn to hand in charges and velocities as one geometric tensor, with clouds of different sizes in one batch. The network
learns the forces on charged particles from clouds that all fly to the right. Turned clouds then have the same error, which a network
of the same width without symmetry does not reach.
"""

from escnn_attn import SteerablePointTransformer

import torch

Cloud = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def draw(clouds: int, generator: torch.Generator) -> Cloud:
    """Charges (n, 1), velocities (n, 2), positions (n, 2) and the cloud (n,) of each of n particles, 4 to 8 in a cloud."""
    counts = torch.randint(4, 9, (clouds,), generator=generator)
    batch = torch.arange(clouds).repeat_interleave(counts)
    charges = torch.randint(0, 2, (len(batch), 1), generator=generator) * 2.0 - 1
    noise, positions = torch.randn(2, len(batch), 2, generator=generator)
    velocities = torch.tensor([1.0, 0.0]) + 0.3 * noise
    return charges, velocities, positions * torch.tensor([2.0, 1.0]), batch


def force(charges: torch.Tensor, velocities: torch.Tensor, positions: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Repulsion of equal charges, attraction of others, and a magnetic field that turns velocities: vectors (n, 2)."""
    away = positions[:, None] - positions[None]
    same = (batch[:, None] == batch[None])[..., None]
    electric = (same * charges[None] * away / (1 + away.square().sum(dim=-1, keepdim=True))).sum(dim=1)
    magnetic = torch.stack([-velocities[:, 1], velocities[:, 0]], dim=1)
    return charges * (electric + magnetic)


def error(network: SteerablePointTransformer, cloud: Cloud) -> torch.Tensor:
    """Mean square error, relative to the mean square of the forces."""
    charges, velocities, positions, batch = cloud
    x = network.in_type(torch.cat([charges, velocities], dim=1), positions)  # channels in the order of the type, and coords
    expected = force(*cloud)
    return (network(x, batch=batch).tensor - expected).square().mean() / expected.square().mean()


def rotated(cloud: Cloud, degrees: float) -> Cloud:
    """The cloud as it looks after a turn of the table: charges stay, velocities and positions turn."""
    charges, velocities, positions, batch = cloud
    angle = torch.tensor(degrees).deg2rad()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    return charges, velocities @ turn.T, positions @ turn.T, batch


def train(network: SteerablePointTransformer, steps: int) -> None:
    draws = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(steps):
        loss = error(network, draw(32, draws))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def main(steps: int = 200) -> dict[str, list[float]]:
    """Errors on clouds at 0, 30 and 77 degrees, of each network."""
    test, errors = draw(200, torch.Generator().manual_seed(1)), {}
    for group, channels in (("SO2", 8), ("trivial", 40)):  # 8 functions of 5 coefficients, and 40 plain channels
        torch.manual_seed(0)
        sizes = {"channels": channels, "depth": 2, "max_frequency": 2 if group == "SO2" else None}
        network = SteerablePointTransformer(group, in_type={"scalars": 1, "vectors": 1}, out_fields={"vectors": 1}, **sizes)
        train(network, steps)
        with torch.no_grad():
            errors[group] = [error(network.eval(), rotated(test, degrees)).item() for degrees in (0.0, 30.0, 77.0)]
        size = sum(p.numel() for p in network.parameters())
        upright, *turned = (f"{value:.3f}" for value in errors[group])
        print(f"{group:8} {size:6,} parameters, relative error {upright}, of turned clouds {' and '.join(turned)}")
    return errors


if __name__ == "__main__":
    main()
