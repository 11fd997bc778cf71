"""Under which circumstances a module is tested: domain, sizes, dtype and mode."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from escnn.group import GroupElement
from escnn.nn import FieldType, GeometricTensor
from torch import nn

from escnn_attn.testing.actions import lattice_elements, random_elements
from escnn_attn.testing.modules import input_types
from escnn_attn.tokens.windows import fitting_side, windows_of

#: height and width of grids: odd, even, and not square
GRIDS = ((11, 11), (8, 8), (7, 10))
#: numbers of points of clouds and their radii
CLOUDS = ((44, 3.0), (26, 12.0))


@dataclass(frozen=True)
class Setting:
    """Circumstances of a test.

    Attributes:
        domain: `"grid"`, a Gaussian random field on pixels, or `"points"`, one on a random cloud.
        size: height and width of the grid, or number of points and radius of the cloud.
        dtype: of the computation.
        training: whether in train mode.
        batch: samples on a grid (a cloud is one sample).
        seed: of input and elements.
        periodic: whether grids repeat.
    """

    domain: str
    size: tuple[float, float]
    dtype: torch.dtype = torch.float64
    training: bool = False
    batch: int = 2
    seed: int = 0
    periodic: bool = False

    def inputs(self, module: nn.Module) -> list[GeometricTensor]:
        """An input, and where the module takes one a context, which is a little larger."""
        draw = torch.Generator().manual_seed(self.seed)
        return [self._draw(t, index, draw) for index, t in enumerate(input_types(module))]

    def _draw(self, field_type: FieldType, index: int, draw: torch.Generator) -> GeometricTensor:
        like = {"dtype": self.dtype, "generator": draw}
        if self.domain == "grid":
            height, width = (int(side) + (0 if self.periodic else 2 * index) for side in self.size)
            return field_type(torch.randn(self.batch, field_type.size, height, width, **like))
        points, radius = int(self.size[0]) + 8 * index, self.size[1]
        features = torch.randn(points, field_type.size, **like)
        distance = radius * torch.rand(points, 1, **like).sqrt()
        angle = 2 * np.pi * torch.rand(points, 1, **like)
        return GeometricTensor(features, field_type, torch.cat([distance * angle.cos(), distance * angle.sin()], dim=1))

    def options(self, module: nn.Module) -> dict[str, bool]:
        """Arguments of the call of a module, beside its inputs: `periodic`, where it takes that and was not made so."""
        if not self.periodic or getattr(module, "periodic", False):
            return {}
        takes = inspect.signature(module.forward).parameters.values()
        return {"periodic": True} if any(p.name == "periodic" or p.kind == p.VAR_KEYWORD for p in takes) else {}

    def elements(self, module: nn.Module) -> list[GroupElement]:
        """All elements that act exactly on a grid; on points all of a small finite group, and otherwise 8 random ones."""
        t = input_types(module)[0]
        if self.domain == "grid":
            return lattice_elements(t.gspace)
        return random_elements(t.fibergroup, 8, np.random.default_rng(self.seed))

    def __str__(self) -> str:
        where = "{} points within {:g}" if self.domain == "points" else "{} × {} pixels"
        where = f"{where}, periodic" if self.periodic else where
        mode = "train" if self.training else "eval"
        return f"{where.format(*self.size)}, {self.dtype}, {mode} mode"


def variants(module: nn.Module, setting: Setting, *, sizes: bool, dtypes: bool) -> Iterator[Setting]:
    """A setting in train mode and, where wanted, in other sizes and in float32."""
    if sizes:
        yield from (replace(setting, size=size) for size in default_sizes(module, setting.domain)[1:])
    if dtypes:
        yield replace(setting, dtype=torch.float32)
    yield replace(setting, training=True)


def default_sizes(module: nn.Module, domain: str) -> list[tuple[float, float]]:
    """Sizes to test; of grids those on which convolutions and poolings of escnn keep the rotation center."""
    if domain == "points":
        return list(CLOUDS)
    windows = windows_of(module)
    fitting = [tuple(fitting_side(windows, side) or side for side in sides) for sides in GRIDS]
    return [(height, width) for height, width in dict.fromkeys(fitting)]
