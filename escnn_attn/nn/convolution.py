"""Steerable convolutions of escnn that keep the rotation center of images of every side."""

import copy
from typing import cast

import escnn.nn
import torch
import torch.nn.functional as F
from escnn.group import GroupElement
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor, nn

from escnn_attn.arguments import require_choice, require_integer
from escnn_attn.compat import kept_filter, plain_indices
from escnn_attn.fields import require_planar
from escnn_attn.nn._kernels import deviations, follow_stored, kernel_expansion, resampled
from escnn_attn.testing import check_equivariance
from escnn_attn.tokens import require_grid

PADDING_MODES = ("zeros", "circular")

Kernel = tuple[Tensor, Tensor | None]


class SteerableConvolution(escnn.nn.R2Conv):
    r"""A steerable convolution whose strides keep the rotation center of every image, of odd and of even sides.

    A side of $n$ pixels becomes $t = \lceil n / s \rceil$ tokens at the stride $s$, about the same center, by the same padding at
    both ends. For that the kernel has an odd or an even number of pixels, as $n - (t - 1) s$ is odd or even, along each axis for
    itself: one kernel, a function on the plane, sampled at distances of $0, 1, \dots$ or of $\frac12, \frac32, \dots$ pixels. So one
    set of weights is for images of all sizes. On odd sides it is `escnn.nn.R2Conv` with `padding=kernel_size // 2`.

    Args:
        in_type: any field type on the plane.
        out_type: any field type on the same gspace.
        kernel_size: pixels from end to end of the kernel, odd; where they have to be even, one more.
        stride: pixels from token to token, at most `kernel_size`.
        padding_mode: `"zeros"`, or `"circular"` for periodic images, whose sides must be multiples of the stride.
        bias: whether the trivial irreps get a bias.

    Shape:
        (b, in_type.size, height, width) to (b, out_type.size, ⌈height / stride⌉, ⌈width / stride⌉).

    Raises:
        TypeError: if the types are not on one planar gspace, or a number no integer.
        ValueError: if the kernel size is even or less than the stride, or there is no equivariant map between the types; in a call,
            for a periodic image with a side that is no multiple of the stride, or less than half the kernel.

    Examples:
        >>> import torch
        >>> from escnn_attn import SteerableConvolution, field_type, planar_gspace
        >>> t = field_type(planar_gspace("SO2"), scalars=1, vectors=2)
        >>> convolution = SteerableConvolution(t, t, 5, stride=2)
        >>> convolution(t(torch.randn(1, 5, 28, 33))).shape
        torch.Size([1, 5, 14, 17])
    """

    #: for `tokens.windows`: padding follows from the side
    centered = True

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType,
        kernel_size: int,
        *,
        stride: int = 1,
        padding_mode: str = "zeros",
        bias: bool = True,
    ) -> None:
        require_planar(in_type)
        require_planar(out_type, "out_type")
        if in_type.gspace != out_type.gspace:
            raise TypeError(f"expected types on one gspace, got {in_type.gspace} and {out_type.gspace}")
        size, step = require_integer("kernel_size", kernel_size), require_integer("stride", stride)
        if size % 2 == 0 or step > size:
            raise ValueError(f"expected an odd kernel_size of at least the stride, got kernel_size={size} and stride={step}")
        mode = require_choice("padding_mode", padding_mode, PADDING_MODES)
        super().__init__(
            in_type, out_type, size, stride=step, padding=size // 2, padding_mode=mode, bias=bias, initialize=False
        )
        for name in ("filter", "expanded_bias"):  # escnn's, of odd sides alone
            self._buffers.pop(name, None)
        # escnn shares kernel bases between all convolutions of the process: .double() on one network would break others
        self._basisexpansion = kernel_expansion(copy.deepcopy(plain_indices(self._basisexpansion)), size)
        #: rows and columns of the kernel, by `kernel_number`
        self.shapes = [(size + high, size + wide) for high in (0, 1) for wide in (0, 1)]
        self._resampled = nn.ModuleList(resampled(self._basisexpansion, size, shape) for shape in self.shapes[1:])
        self.register_load_state_dict_post_hook(SteerableConvolution._follow_stored_kernels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gaussian weights that keep the variance of the input, as escnn's `generalized_he_init`, and zero bias."""
        with torch.no_grad():
            self.weights.copy_(deviations(self._basisexpansion).to(self.weights) * torch.randn_like(self.weights))
            if self.bias is not None:
                self.bias.zero_()

    def _follow_stored_kernels(self, _keys: object) -> None:
        """Makes the samples on other grids those of the kernels whose samples on the odd grid have been loaded.

        escnn finds kernels numerically, so that those of another machine may be others of the same space.
        """
        follow_stored(self._basisexpansion, self._resampled, self.kernel_size, self.shapes[1:], self.weights)
        vars(self).pop("_kept", None)

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        return GeometricTensor(self.forward_grid(require_grid(input, self.in_type, self)), self.out_type)

    def forward_grid(self, x: Tensor) -> Tensor:
        """The convolution of plain tensors (b, c, height, width), without any type."""
        return convolve(x, *self.kernel_of(x), self.stride, self.padding_mode)

    def kernel_of(self, x: Tensor) -> Kernel:
        """The kernel (c', c, rows, columns) for images (b, c, height, width), and the bias (c',), None without."""
        number = kernel_number(x, self.stride)
        return kept_filter(self, number, lambda: self.kernel(number))

    def kernel(self, number: int) -> Kernel:
        """The kernel of one of the `shapes`, and the bias, expanded from the weights."""
        expansion = self._resampled[number - 1] if number else self._basisexpansion
        bias = None if self.bias is None else cast(Tensor, self.bias_expansion) @ self.bias
        return expansion(self.weights).unflatten(2, self.shapes[number]), bias

    def train(self, mode: bool = True) -> "SteerableConvolution":
        nn.Module.train(self, mode)  # escnn's would expand the kernel of odd sides
        return self

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        batch, _, *sides = input_shape
        return (batch, self.out_type.size, *(-(-side // self.stride) for side in sides))

    def check_equivariance(self, atol: float = 1e-7, rtol: float = 1e-5) -> list[tuple[GroupElement, float]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Checks quarter turns and flips of images; see `PlanarModule.check_equivariance`."""
        return check_equivariance(self, rtol, domain="grid")

    def export(self) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A copy in eval mode on plain tensors, for images of all sizes."""
        return ExportedConvolution(self)


class ExportedConvolution(nn.Module):
    """The kernels of a convolution for odd and even sides, as constants.

    Args:
        convolution: whose kernels are copied.
    """

    def __init__(self, convolution: SteerableConvolution) -> None:
        super().__init__()
        self.stride, self.padding_mode = convolution.stride, convolution.padding_mode
        with torch.no_grad():
            kernels = [convolution.kernel(number) for number in range(len(convolution.shapes))]
        self.kernels = nn.ParameterList(nn.Parameter(kernel, requires_grad=False) for kernel, _ in kernels)
        self.bias: Tensor | None
        self.register_buffer("bias", kernels[0][1])

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernels[kernel_number(x, self.stride)]
        return convolve(x, kernel, self.bias, self.stride, self.padding_mode)


def kernel_number(x: Tensor, stride: int) -> int:
    """Which axes of the kernel are even for images (b, c, height, width): 2 for the rows and 1 for the columns."""
    rows, columns = (_rest(side, stride) % 2 for side in x.shape[2:])
    return 2 * rows + columns


def _rest(side: int, stride: int) -> int:
    """(side − 1) modulo the stride, as a plain number also where an export keeps the side open: it is for sides of that rest."""
    return next(rest for rest in range(stride) if (side - 1) % stride == rest)


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, stride: int, padding_mode: str, groups: int = 1) -> Tensor:
    """A convolution of images (b, c, height, width) with as much padding as keeps the center, the same at both ends."""
    margins = [(extent - 1 - _rest(side, stride)) // 2 for side, extent in zip(x.shape[2:], kernel.shape[2:], strict=True)]
    if padding_mode == "zeros":
        return F.conv2d(x, kernel, bias, stride, margins, groups=groups)
    if any(side % stride or side < margin for side, margin in zip(x.shape[2:], margins, strict=True)):
        raise ValueError(
            f"expected periodic images with sides of at least {max(margins)} that are multiples of the stride {stride}, "
            f"got {x.shape[2]} × {x.shape[3]}"
        )
    high, wide = margins
    return F.conv2d(F.pad(x, (wide, wide, high, high), "circular"), kernel, bias, stride, groups=groups)
