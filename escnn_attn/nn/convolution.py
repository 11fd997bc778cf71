"""Steerable convolutions of escnn that keep the rotation center of images of every side."""

import copy
from collections import Counter, defaultdict
from functools import lru_cache
from typing import Any, cast

import escnn.nn
import numpy as np
import torch
import torch.nn.functional as F
from escnn.group import GroupElement
from escnn.kernels import KernelBasis
from escnn.nn import FieldType, GeometricTensor
from escnn.nn.modules.basismanager import BlocksBasisExpansion
from escnn.nn.modules.basismanager.basisexpansion_singleblock import normalize_basis
from torch import Tensor, nn

from escnn_attn.arguments import require_choice, require_integer
from escnn_attn.compat import kept_filter, plain_indices
from escnn_attn.fields import ExactBuffer, require_planar
from escnn_attn.testing import check_equivariance
from escnn_attn.tokens import Lattice, lattice_positions, require_input

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
        self._basisexpansion = copy.deepcopy(plain_indices(self._basisexpansion))
        #: rows and columns of the kernel, by `kernel_number`
        self.shapes = [(size + high, size + wide) for high in (0, 1) for wide in (0, 1)]
        self._resampled = nn.ModuleList(_resampled(self._basisexpansion, size, shape) for shape in self.shapes[1:])
        self.register_load_state_dict_post_hook(SteerableConvolution._follow_stored_kernels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gaussian weights that keep the variance of the input, as escnn's `generalized_he_init`, and zero bias."""
        with torch.no_grad():
            self.weights.copy_(_deviations(self._basisexpansion).to(self.weights) * torch.randn_like(self.weights))
            if self.bias is not None:
                self.bias.zero_()

    def _follow_stored_kernels(self, _keys: object) -> None:
        """Makes the samples on other grids those of the kernels whose samples on the odd grid have been loaded.

        escnn finds kernels numerically, so that those of another machine may be others of the same space.
        """
        for name, block in self._basisexpansion.named_children():
            change = _change_of_kernels(block, self.kernel_size)
            for expansion, shape in zip(self._resampled, self.shapes[1:], strict=True):
                samples = _samples(*_key(block), self.kernel_size, shape)
                changed = samples if change is None else np.einsum("ab,bcdp->acdp", change, samples)
                expansion._modules[name] = _Samples(changed).to(self.weights)  # pyright: ignore
        vars(self).pop("_kept", None)

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        return GeometricTensor(self.forward_grid(require_input(input, self.in_type, self).tensor), self.out_type)

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


def _deviations(expansion: BlocksBasisExpansion) -> Tensor:
    """Standard deviations of the weights: those of escnn's loop over all weights, by a loop over those of two fields."""
    pairs = {pair: _ends(_block(expansion, pair)) for pair in expansion._representations_pairs}
    counts: dict[tuple, Counter] = defaultdict(Counter)  # kernels to each output irrep, by input irrep
    for (inputs, outputs), ends in pairs.items():
        for in_irrep, out_irrep in ends:
            counts[outputs, out_irrep][in_irrep] += expansion._in_count[inputs]
    deviations = []
    for (inputs, outputs), ends in pairs.items():
        of_ends = [(counts[outputs, out_irrep], in_irrep) for in_irrep, out_irrep in ends]
        each = torch.tensor([(len(count) * count[irrep]) ** -0.5 for count, irrep in of_ends])
        deviations.append(each.repeat(expansion._in_count[inputs] * expansion._out_count[outputs]))
    return torch.cat(deviations)


def _key(block: Any) -> tuple[Any, bytes]:
    """The kernels of a block of escnn, and which of them it keeps."""
    return block.basis, block._mask.numpy().tobytes()


def _ends(block: Any) -> list[tuple]:
    """Input irrep, and place of the output irrep, of each kernel of a block of escnn."""
    return _ends_of(*_key(block))


@lru_cache(maxsize=256)
def _ends_of(basis: KernelBasis, mask: bytes) -> list[tuple]:
    kept = zip(basis, np.frombuffer(mask, dtype=bool), strict=True)
    return [(kernel["in_irrep"], kernel["out_irrep_idx"]) for kernel, keep in kept if keep]


class _Samples(nn.Module):
    """Kernels between copies of two representations, sampled on a grid: what escnn calls a block expansion.

    Args:
        samples: (kernels, c', c, points).
    """

    def __init__(self, samples: np.ndarray) -> None:
        super().__init__()
        self.samples = ExactBuffer(samples)

    def dimension(self) -> int:
        return self.samples.shape[0]

    def forward(self, weights: Tensor) -> Tensor:
        return torch.einsum("boi...,kb->koi...", self.samples.like(weights), weights)


def _resampled(expansion: BlocksBasisExpansion, size: int, shape: tuple[int, int]) -> BlocksBasisExpansion:
    """The same kernels, in the same norm, on a grid of another shape than `size` × `size`."""
    other = copy.copy(expansion)
    other.points = _points(*shape).numpy()
    other.S = len(other.points)
    # its buffers, of indices, are those of the other one, which stores them
    other._non_persistent_buffers_set = set(other._buffers)
    other._modules = {name: _Samples(_samples(*_key(block), size, shape)) for name, block in expansion.named_children()}
    return other


def _change_of_kernels(block: Any, size: int) -> np.ndarray | None:
    """Coefficients (kernels, kernels) of the kernels that a block of escnn has in those that were found here; None for the same."""
    stored = block.sampled_basis.detach().double().flatten(1)
    if stored.is_meta:
        return None
    here = _normed(*_key(block), size)[0].double().flatten(1)
    if torch.allclose(stored.cpu(), here, atol=1e-4):
        return None
    change = torch.linalg.lstsq(here.T, stored.cpu().T).solution.T
    if not torch.allclose(change @ here, stored.cpu(), atol=1e-3):
        raise ValueError(
            "expected kernels between the same types, of the same size, in a state_dict, got samples of other functions"
        )
    return change.numpy()


@lru_cache(maxsize=256)
def _samples(basis: KernelBasis, mask: bytes, size: int, shape: tuple[int, int]) -> np.ndarray:
    """Samples (kernels, c', c, points) of kernels that escnn has normed on a grid of `size` × `size`, on another grid."""
    normed, scale = _normed(basis, mask, size)
    samples = _raw(basis, mask, shape) * scale
    # a kernel of the central pixel alone, which is between pixels here: on the nearest
    center = normed[..., size**2 // 2, None]
    alone = center.square().sum((1, 2, 3)) >= (1 - 1e-6) * normed.square().sum((1, 2, 3))
    nearest = (1 - _points(*shape).abs()).clamp(min=0).prod(dim=1)
    return torch.where(_of_kernels(alone), center * nearest, samples).numpy()


def _normed(basis: KernelBasis, mask: bytes, size: int) -> tuple[Tensor, Tensor]:
    """Samples (kernels, c', c, points) as escnn norms them on a grid of `size` × `size`, and by what factors (kernels, 1, 1, 1)."""
    raw = _raw(basis, mask, (size, size))
    kept = zip(basis, np.frombuffer(mask, dtype=bool), strict=True)
    normed = normalize_basis(raw.clone(), torch.tensor([float(kernel["shape"][0]) for kernel, keep in kept if keep]))
    return normed, _of_kernels((normed * raw).sum((1, 2, 3)) / raw.square().sum((1, 2, 3)))


def _raw(basis: KernelBasis, mask: bytes, shape: tuple[int, int]) -> Tensor:
    kept = torch.from_numpy(np.frombuffer(mask, dtype=bool).copy())
    return basis.sample(_points(*shape)).permute(1, 2, 3, 0)[kept]


def _block(expansion: BlocksBasisExpansion, pair: tuple[str, str]) -> Any:
    """The kernels between two representations, by their names."""
    return expansion.get_submodule(f"block_expansion_{expansion._escape_pair(pair)}")


def _of_kernels(x: Tensor) -> Tensor:
    return x[:, None, None, None]


def _points(rows: int, columns: int) -> Tensor:
    return torch.from_numpy(lattice_positions(Lattice(rows, columns))).float()
