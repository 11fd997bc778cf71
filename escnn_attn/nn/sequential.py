"""A chain of modules that passes on where tokens are."""

import escnn.nn
from escnn.group import GroupElement
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from typing_extensions import Unpack

from escnn_attn.compat import change_of_mode, tend_filters
from escnn_attn.nn.modules import PlanarModule, TakesDomain
from escnn_attn.testing import assert_equivariant, stated_tolerance
from escnn_attn.tokens import DomainOptions, require_type


class SequentialModule(escnn.nn.SequentialModule, TakesDomain):
    """escnn's chain of modules, which also passes `batch`, `mask` and the like on to the modules of this library.

    It has the name of `escnn.nn.SequentialModule` and takes its place: without these arguments it computes the same, and its
    `state_dict` is the same in train and eval mode.

    Args:
        *modules: of escnn or of this library, each with the output type of the module before as its input type.

    Examples:
        >>> import escnn.nn
        >>> import torch
        >>> from escnn_attn import SequentialModule, SteerableLinear, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("C4"), 2)
        >>> chain = SequentialModule(SteerableLinear(t, t), escnn.nn.ReLU(t))
        >>> chain(t(torch.randn(5, 8), torch.randn(5, 2)), batch=torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([5, 8])
    """

    in_type: FieldType

    def __init__(self, *modules: EquivariantModule) -> None:
        super().__init__(*modules)
        tend_filters(self)

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks exactly representable elements on a grid, and random ones on a cloud if all modules take clouds; see `PlanarModule.check_equivariance`."""
        errors = assert_equivariant(self, domain="grid", tolerance=rtol)
        if self.takes_points():
            errors += assert_equivariant(self, domain="points", tolerance=max(rtol, stated_tolerance(self)))
        return errors

    def takes_points(self) -> bool:
        """Whether all modules, those of nested chains too, take points."""
        nested = [module for module in self._modules.values() if isinstance(module, SequentialModule)]
        others = [module for module in self._modules.values() if not isinstance(module, SequentialModule)]
        return all(isinstance(module, PlanarModule) for module in others) and all(chain.takes_points() for chain in nested)

    def train(self, mode: bool = True) -> "SequentialModule":
        with change_of_mode(self):
            return super().train(mode)

    def forward(self, input: GeometricTensor, **options: Unpack[DomainOptions]) -> GeometricTensor:
        """Applies the modules in turn; the arguments are those of `TokenModule.forward`."""
        x = require_type(input, self.in_type)
        for module in filter(None, self._modules.values()):
            if isinstance(module, TakesDomain):
                x = module(x, **options)
                continue
            if any(value is not None for value in options.values()) and any(
                isinstance(part, TakesDomain) for part in module.modules()
            ):
                raise TypeError(
                    f"{type(module).__name__} does not pass batch, mask and the like on to the attention inside it: nest an "
                    "escnn_attn.SequentialModule instead"
                )
            x = module(x)
        return x
