"""Kernels of steerable convolutions, expanded from weights on grids of odd and of even sides."""

import copy
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from escnn.kernels import KernelBasis
from escnn.nn.modules.basismanager import BlocksBasisExpansion
from escnn.nn.modules.basismanager.basisexpansion_singleblock import normalize_basis
from torch import Tensor, nn

from escnn_attn.fields import ExactBuffer
from escnn_attn.functional.autograd import Gradients, autocasted, differentiate, plain_gradients
from escnn_attn.modes import keepable
from escnn_attn.tokens import Lattice, lattice_positions

#: for rows of a matrix of a kernel: the kernels that are not zero there
Support = tuple[tuple[tuple[int, ...], list[int]], ...]


class KernelExpansion(BlocksBasisExpansion):
    """escnn's expansion of weights to a kernel, which multiplies by no zeros and writes each number to its place at once."""

    def _expand_block(self, weights: Tensor, io_pair: tuple[str, str]) -> Tensor:
        block, (start, end) = _block(self, io_pair), self._weights_ranges[io_pair]
        coefficients = weights[start:end].view(self._out_count[io_pair[1]], self._in_count[io_pair[0]], -1)
        samples = block.samples.like(weights) if isinstance(block, _Samples) else block.sampled_basis
        return expand(coefficients, samples, block.support)


def kernel_expansion(expansion: BlocksBasisExpansion, size: int) -> KernelExpansion:
    """Makes an expansion of escnn, on a grid of `size` × `size`, one of these."""
    expansion.__class__ = KernelExpansion
    for _, block in expansion.named_children():
        cast(Any, block).support = _support(_samples(*_key(block), size, (size, size)))
    return cast(KernelExpansion, expansion)


def expand(coefficients: Tensor, samples: Tensor, support: Support) -> Tensor:
    """Sums of kernels between copies of two representations, (o, c', i, c, points).

    Args:
        coefficients: (o, i, kernels), for o copies of the output and i of the input.
        samples: (kernels, c', c, points).
        support: where samples are not zero.
    """
    coefficients, samples = autocasted(coefficients, samples)
    if coefficients.device.type != "cpu" or not keepable():
        return _sums(coefficients, samples)
    with torch.autocast("cpu", enabled=False):
        return _Expand.apply(coefficients, samples, support)


def _sums(coefficients: Tensor, samples: Tensor) -> Tensor:
    return torch.einsum("oib,bdcp->odicp", coefficients, samples)


class _Expand(torch.autograd.Function):
    """By hand because the product with all kernels is mostly by zeros, and not in the order of the result."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, samples: Tensor, support: Support) -> Tensor:
        ctx.save_for_backward(coefficients, samples)
        ctx.support = support
        (outputs, inputs, _), (_, rows, columns, points) = coefficients.shape, samples.shape
        out = coefficients.new_empty(outputs, rows, inputs, columns * points)
        for of_rows, kernels in support:
            factors = coefficients[..., kernels]
            for row in of_rows:
                torch.bmm(factors, _at(samples, row, kernels, outputs), out=out[:, row])
        return out.unflatten(3, (columns, points))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        coefficients, samples = ctx.saved_tensors
        if plain_gradients(grads):
            return *differentiate(_sums, (coefficients, samples), ctx.needs_input_grad[:2], grads), None
        grad, by_coefficients = grads[0].flatten(3), torch.zeros_like(coefficients)
        for of_rows, kernels in ctx.support:
            parts = [torch.bmm(grad[:, row], _at(samples, row, kernels, len(grad)).mT) for row in of_rows]
            by_coefficients[..., kernels] += torch.stack(parts).sum(0)
        return by_coefficients, None, None


def _at(samples: Tensor, row: int, kernels: list[int], copies: int) -> Tensor:
    """One row of the matrices of kernels, (copies, kernels, c · points)."""
    return samples[kernels, row].flatten(1).expand(copies, -1, -1)


def _support(samples: np.ndarray) -> Support:
    """The kernels of samples (kernels, c', c, points) that are not zero in a row, for all rows with the same ones."""
    kept = np.abs(samples).max(axis=(2, 3), initial=0) > 1e-7 * np.abs(samples).max(initial=0)
    rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in range(kept.shape[1]):
        rows[tuple(np.flatnonzero(kept[:, row]).tolist())].append(row)
    return tuple((tuple(of_kernels), list(kernels)) for kernels, of_kernels in rows.items())


def deviations(expansion: BlocksBasisExpansion) -> Tensor:
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
        self.support = _support(samples)

    def dimension(self) -> int:
        return self.samples.shape[0]


def resampled(expansion: BlocksBasisExpansion, size: int, shape: tuple[int, int]) -> BlocksBasisExpansion:
    """The same kernels, in the same norm, on a grid of another shape than `size` × `size`."""
    other = copy.copy(expansion)
    other.points = _points(*shape).numpy()
    other.S = len(other.points)
    # its buffers, of indices, are those of the other one, which stores them
    other._non_persistent_buffers_set = set(other._buffers)
    other._modules = {name: _Samples(_samples(*_key(block), size, shape)) for name, block in expansion.named_children()}
    return other


def follow_stored(
    expansion: BlocksBasisExpansion, others: Iterable[nn.Module], size: int, shapes: Sequence[tuple[int, int]], like: Tensor
) -> None:
    """Makes the samples of expansions on other grids those of the kernels that one on the grid `size` × `size` has loaded.

    escnn finds kernels numerically, so that those of another machine may be others of the same space.
    """
    others = list(others)
    for name, block in expansion.named_children():
        change, key = _change_of_kernels(block, size), _key(block)
        cast(Any, block).support = _support(_changed(_samples(*key, size, (size, size)), change))
        for other, shape in zip(others, shapes, strict=True):
            other._modules[name] = _Samples(_changed(_samples(*key, size, shape), change)).to(like)


def _changed(samples: np.ndarray, change: np.ndarray | None) -> np.ndarray:
    return samples if change is None else np.einsum("ab,bcdp->acdp", change, samples)


def _change_of_kernels(block: Any, size: int) -> np.ndarray | None:
    """Coefficients (kernels, kernels) of the kernels that a block of escnn has in those that were found here; None for the same."""
    stored = block.sampled_basis.detach().double().flatten(1)
    if stored.is_meta:
        return None
    here = _normed(*_key(block), size)[0].double().flatten(1)
    if torch.allclose(stored.cpu(), here, atol=1e-4):
        return None
    change = torch.linalg.lstsq(here.T, stored.cpu().T).solution.T
    rounding = torch.finfo(block.sampled_basis.dtype).eps  # which matters for modules in half precision
    if not torch.allclose(change @ here, stored.cpu(), rtol=max(1e-5, rounding), atol=1e-3):
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
