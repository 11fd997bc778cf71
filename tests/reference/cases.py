"""Modules with parameters that depend on their names alone, and inputs for them: what stored outputs are of."""

import zlib
from collections.abc import Callable
from functools import partial

import torch
from escnn.nn import GeometricTensor
from torch import Tensor, nn

import escnn_attn as ea
from escnn_attn.data.digits import Digits, to_input
from tests.helpers import POSITIONS, cloud, mixed_type

#: what gives the output of a case
Case = Callable[[], Tensor]


def named(name: str, *shape: int) -> Tensor:
    """Gaussian numbers that depend on a name alone."""
    draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def filled(module: nn.Module) -> nn.Module:
    """The module in float64 and eval mode, each parameter moved by numbers that depend on its name."""
    module = module.double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            start = parameter.abs().mean() if parameter.dim() == 1 else 0
            spread = 0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
            parameter.copy_(start.round() if parameter.dim() == 1 else torch.zeros_like(parameter))
            parameter.add_(spread * named(name, *parameter.shape))
    return module.eval()


def run(make: Callable[[], nn.Module], *inputs: Callable[[nn.Module], GeometricTensor], **options: object) -> Tensor:
    module = filled(make())
    out = module(*(x(module) for x in inputs), **options)
    return (out if isinstance(out, Tensor) else out.tensor).detach()


def grid(module: nn.Module, height: int = 5, width: int = 7, of: str = "in_type") -> GeometricTensor:
    t = getattr(module, of)
    return t(named(f"grid {height} {width} {of}", 2, t.size, height, width))


def points(module: nn.Module, count: int = 23, of: str = "in_type") -> GeometricTensor:
    return cloud(getattr(module, of), points=count, seed=3)


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    batch = torch.arange(23) % 3
    for group in ("trivial", "C4", "D4", "SO2", "O2"):
        t = mixed_type(group)
        layers = {
            "linear": partial(ea.SteerableLinear, t, t),
            "norm": partial(ea.SteerableRMSNorm, t),
            "bilinear": partial(ea.BilinearFeedForward, t),
            "gated": partial(ea.GatedFeedForward, t),
            "fourier": partial(ea.FourierFeedForward, t),
            "pooling": partial(ea.InvariantPooling, t),
        }
        found |= {f"{group} {name} points": partial(run, make, points, batch=batch) for name, make in layers.items()}
        for name, position in POSITIONS.items():
            make = partial(ea.SteerableSelfAttention, t, num_heads=3, head_channels=4, position=position)
            found[f"{group} attention {name} points"] = partial(run, make, points, batch=batch)
            found[f"{group} attention {name} grid"] = partial(run, make, grid)
            near = {"disc": ea.Disc(1.5), "nearest": ea.KNearest(4)}
            for where, neighborhood in near.items():
                found[f"{group} attention {name} {where} points"] = partial(
                    run, partial(make, neighborhood=neighborhood), points, batch=batch
                )
            found[f"{group} attention {name} disc grid"] = partial(run, partial(make, neighborhood=ea.Disc(1.5)), grid)
            found[f"{group} attention {name} wide disc grid"] = partial(run, partial(make, neighborhood=ea.Disc(3.0)), grid)
        make = partial(ea.SteerableSelfAttention, t, num_heads=3, head_channels=4)
        mask = named("mask", 2, 5, 7) > -0.5
        weights = named("weights", 2, 5, 7).abs()
        for name, module in {"global": make, "disc": partial(make, neighborhood=ea.Disc(1.5))}.items():
            found[f"{group} masked {name} grid"] = partial(run, module, grid, mask=mask)
            found[f"{group} weighted {name} grid"] = partial(run, module, grid, quadrature_weights=weights, mask=mask)
        edges = torch.stack([torch.arange(23), torch.arange(23).roll(3)])
        found[f"{group} edges"] = partial(run, make, points, edge_index=edges)
        cross = partial(ea.SteerableCrossAttention, t, ea.field_type(t.gspace, scalars=2, vectors=1), num_heads=3)
        context = partial(points, count=11, of="context_type")
        context_grid = partial(grid, height=6, width=6, of="context_type")
        one = {"batch": batch % 2, "batch_size": 2}
        found[f"{group} cross points points"] = partial(run, cross, points, context)
        found[f"{group} cross points grid"] = partial(run, cross, points, context_grid, **one, context_spacing=0.7)
        found[f"{group} cross grid points"] = partial(
            run, partial(cross, neighborhood=ea.Disc(3.0)), grid, context, context_batch=torch.arange(11) % 2
        )
        found[f"{group} cross grid grid"] = partial(run, cross, grid, context_grid, spacing=2.0)
    for group in ("C4", "D4"):
        gspace = ea.planar_gspace(group)
        t = ea.fourier_type(gspace, 4)
        for name, neighborhood in {"global": None, "disc": ea.Disc(1.5)}.items():
            group_attention = partial(ea.GroupSelfAttention, t, num_heads=2, neighborhood=neighborhood)
            lifting = partial(
                ea.LiftingSelfAttention, ea.field_type(gspace, scalars=3), t, num_heads=2, neighborhood=neighborhood
            )
            for where, x in {"grid": grid, "points": points}.items():
                found[f"{group} group attention {name} {where}"] = partial(run, group_attention, x)
                found[f"{group} lifting {name} {where}"] = partial(run, lifting, x)
    for group in ("SO2", "O2"):
        found[f"{group} gelu"] = partial(run, partial(ea.FourierGELU, ea.fourier_type(ea.planar_gspace(group), 3, 2)), grid)
    return found | {f"pretrained {name}": partial(pretrained, name) for name in ("rotmnist", "rotmnist_50k")}


def pretrained(name: str) -> Tensor:
    """Logits of shipped weights for four digits."""
    images = to_input(Digits().arrays()["rotated"][0][:4])
    with torch.no_grad():
        return ea.SteerableTransformer.from_pretrained(name)(images)
