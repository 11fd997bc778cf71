"""A chain of modules that passes on where tokens are."""

from collections import OrderedDict
from collections.abc import Mapping

import escnn.nn
import torch
from escnn.group import GroupElement
from escnn.nn import EquivariantModule, FieldType, GeometricTensor
from typing_extensions import Unpack

from escnn_attn.compat import change_of_mode, tend_filters
from escnn_attn.nn.modules import TakesDomain
from escnn_attn.testing import check_equivariance
from escnn_attn.tokens import DomainOptions, require_dtype, require_type
from escnn_attn.tokens.windows import Window, warn_off_center, windows_of


class SequentialModule(escnn.nn.SequentialModule, TakesDomain):
    """escnn's chain of modules, which also passes `batch`, `mask` and the like on to the modules of this library.

    It has the name of `escnn.nn.SequentialModule` and takes its place: without these arguments it computes the same, and its
    `state_dict` is the same in train and eval mode.

    Args:
        *modules: of escnn or of this library, each with the output type of the module before as its input type.

    Raises:
        TypeError: if a module is not equivariant, or does not take the output type of the module before.

    Warns:
        UserWarning: once for each size of images on which a stride of a convolution or pooling loses the rotation center.

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
    out_type: FieldType
    #: convolutions and poolings of each module; those of nested chains are theirs
    windows: Mapping[str, tuple[Window, ...]] = {}

    def __init__(self, *modules: EquivariantModule) -> None:
        for module in modules[0].values() if modules and isinstance(modules[0], OrderedDict) else modules:
            _require_equivariant(module)
        super().__init__(*modules)
        tend_filters(self)

    def add_module(self, name: str, module: EquivariantModule) -> None:
        """Appends a module; a TypeError unless its input type is the output type of the module before."""
        _require_equivariant(module)
        if len(self) and module.in_type != self.out_type:
            raise TypeError(f"{type(module).__name__} takes {module.in_type}, but the module before gives {self.out_type}")
        super().add_module(name, module)
        self.windows = {**self.windows, name: () if isinstance(module, SequentialModule) else tuple(windows_of(module))}

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:
        """Checks on grids and on points, as far as the modules take them; see `PlanarModule.check_equivariance`."""
        return check_equivariance(self, rtol)

    def train(self, mode: bool = True) -> "SequentialModule":
        with change_of_mode(self):
            return super().train(mode)

    def forward(self, input: GeometricTensor, **options: Unpack[DomainOptions]) -> GeometricTensor:
        """Applies the modules in turn; the arguments are those of `TokenModule.forward`."""
        x = require_type(input, self.in_type)
        for name, module in self._modules.items():
            assert module is not None
            self._watch_center(name, x)
            if isinstance(module, TakesDomain):
                x = module(x, **options)
                continue
            if any(value is not None and value is not False for value in options.values()) and any(
                isinstance(part, TakesDomain) for part in module.modules()
            ):
                raise TypeError(
                    f"{type(module).__name__} does not pass batch, mask and the like on to the attention inside it: nest an "
                    "escnn_attn.SequentialModule instead"
                )
            require_dtype(x.tensor, module)
            x = module(x)
        return x

    def _watch_center(self, name: str, x: GeometricTensor) -> None:
        """Warns if a module moves the rotation center of a grid that enters it."""
        if self.windows[name] and x.tensor.dim() == 4 and x.type.fibergroup.order() != 1 and not torch.compiler.is_compiling():
            warn_off_center(type(self._modules[name]).__name__, self.windows[name], tuple(x.tensor.shape[2:]))


def _require_equivariant(module: object) -> None:
    """Raises a TypeError for what is no equivariant module."""
    if not isinstance(module, EquivariantModule):
        raise TypeError(f"expected modules of escnn.nn or escnn_attn, got {module!r}")
