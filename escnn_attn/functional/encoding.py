"""Functions on the group at samples of it, times the phases of plane waves, and back: the rotary encoding of all heads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from escnn_attn.functional.autograd import Gradients, batched
from escnn_attn.modes import plain_operations


class RotaryBlock(NamedTuple):
    r"""Some channel pairs of a head: those that are rotated on samples, the others by their coefficients.

    Attributes:
        matrix: (r·2·p, w), from the coefficients of p pairs, each in its real and imaginary part, to the two parts of n samples of rotated
            pairs, side by side, and the coefficients of the others.
        phase: cosine and sine of $\theta_t(g)$ at the samples, (b or 1, t, n, 2), never below float32.
    """

    matrix: Tensor
    phase: Tensor


class Rotation(NamedTuple):
    """What the heads of one group are encoded by, at given positions.

    Attributes:
        heads: the heads of the group.
        blocks: for the channel pairs of a head, as many pairs in each.
    """

    heads: slice
    blocks: tuple[RotaryBlock, ...]

    @property
    def widths(self) -> list[int]:
        """Dimensions of the encoded blocks of a head."""
        return [block.matrix.shape[1] for block in self.blocks]

    @property
    def width(self) -> int:
        """Dimensions of an encoded head."""
        return sum(self.widths)


#: one for each head group
Rotations = tuple[Rotation, ...]


def encode_functions(functions: Tensor, rotations: Rotations, turned: Sequence[bool]) -> tuple[Tensor, ...]:
    r"""Coefficients of functions to their values on samples, times $e^{i\theta}$: equation (9) of docs/mathematics.md.

    Args:
        functions: (b, t, r, k, h, c) of k sets, such as keys and values, the channels in two halves: real and imaginary parts.
        rotations: one for each head group.
        turned: for each set, whether it is multiplied by the phases.

    Returns:
        for each head group the k sets, (b, heads of the group, t, width) each.
    """
    if plain_operations():
        return _encoded(functions, rotations, turned)
    return EncodeFunctions.apply(functions, rotations, turned)


def decode_functions(encoded: Sequence[Tensor], rotations: Rotations, turned: Sequence[bool], coefficients: int) -> Tensor:
    """The transpose of `encode_functions`; its inverse, projected onto the band-limited functions.

    Args:
        encoded: what `encode_functions` returns.
        rotations: one for each head group.
        turned: for each set, whether it was multiplied by the phases.
        coefficients: number r of a function.

    Returns:
        functions (b, t, r, k, h, c).
    """
    if plain_operations():
        return _decoded(encoded, rotations, turned, coefficients)
    return DecodeFunctions.apply(rotations, turned, coefficients, *encoded)


class EncodeFunctions(torch.autograd.Function):
    """`encode_functions`; by hand because autograd would gather the gradients of heads and sets in copies."""

    @staticmethod
    def forward(ctx: Any, functions: Tensor, rotations: Rotations, turned: Sequence[bool]) -> tuple[Tensor, ...]:
        ctx.arguments = rotations, turned, functions.shape[2]
        b, t, _, sets, _, _ = functions.shape
        rows, encoded = _rows(functions, rotations), []
        for rotation in rotations:
            of_group = rows[rotation.heads]
            out = rows.new_empty(len(of_group), sets, b, t, rotation.width)
            _multiply(of_group, rotation, out)
            by_set = out.unbind(1)
            for part in [out] if all(turned) else [part for part, turn in zip(by_set, turned, strict=True) if turn]:
                _turn(part, rotation, part)
            encoded += [part.transpose(0, 1) for part in by_set]
        return tuple(encoded)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        decode = _decoded if batched(grads) else decode_functions
        return decode(grads, *ctx.arguments), None, None


class DecodeFunctions(torch.autograd.Function):
    """`decode_functions`, the gradient of `encode_functions`."""

    @staticmethod
    def forward(ctx: Any, rotations: Rotations, turned: Sequence[bool], coefficients: int, *encoded: Tensor) -> Tensor:
        ctx.arguments = rotations, turned
        sets, (b, _, t, _) = len(turned), encoded[0].shape
        blocks = rotations[0].blocks
        rows = encoded[0].new_empty(rotations[-1].heads.stop, sets, len(blocks), b, t, len(blocks[0].matrix))
        for number, rotation in enumerate(rotations):
            of_group = encoded[number * sets : (number + 1) * sets]
            back = of_group[0].new_empty(of_group[0].shape[1], sets, b, t, rotation.width)
            for x, part, turn in zip(of_group, back.unbind(1), turned, strict=True):
                if turn:
                    _turn(x.transpose(0, 1), rotation, part, back=True)
                else:
                    part.copy_(x.transpose(0, 1))
            _multiply(rows[rotation.heads], rotation, back, transposed=True)
        return _functions(rows, coefficients)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        encode = _encoded if batched(grads) else encode_functions
        return None, None, None, *encode(grads[0], *ctx.arguments)


def _rows(functions: Tensor, rotations: Rotations) -> Tensor:
    """Functions (b, t, r, k, h, c) as (h, k, block, b, t, r·2·p): side by side what a matrix of a block takes."""
    (b, t, r, sets, heads, channels), blocks = functions.shape, len(rotations[0].blocks)
    parts = functions.reshape(b, t, r, sets, heads, 2, blocks, channels // (2 * blocks))
    return parts.permute(4, 3, 6, 0, 1, 2, 5, 7).reshape(heads, sets, blocks, b, t, r * channels // blocks)


def _functions(rows: Tensor, coefficients: int) -> Tensor:
    """The inverse of `_rows`."""
    heads, sets, blocks, b, t, size = rows.shape
    parts = rows.reshape(heads, sets, blocks, b, t, coefficients, 2, size // (2 * coefficients))
    return parts.permute(3, 4, 5, 1, 0, 6, 2, 7).reshape(b, t, coefficients, sets, heads, blocks * size // coefficients)


def _multiply(rows: Tensor, rotation: Rotation, encoded: Tensor, transposed: bool = False) -> None:
    """Writes the products of rows (h, k, block, b, t, r·2·p) and matrices to encoded heads (h, k, b, t, width), or back to the rows."""
    rows, encoded = rows.flatten(3, 4).flatten(0, 1), encoded.flatten(2, 3).flatten(0, 1)
    start = 0
    for index, block in enumerate(rotation.blocks):
        matrix = block.matrix.to(encoded.dtype).expand(len(encoded), -1, -1)
        part = encoded.narrow(2, start, matrix.shape[2])
        if transposed:
            torch.bmm(part, matrix.mT, out=rows[:, index])
        else:
            torch.bmm(rows[:, index], matrix, out=part)
        start += matrix.shape[2]


def _turn(x: Tensor, rotation: Rotation, out: Tensor, back: bool = False) -> None:
    """Writes encoded heads (…, b, t, width) times their phases, or the conjugate of these, to `out`, which may be x."""
    start = 0
    for block in rotation.blocks:
        phase, count, width = torch.view_as_complex(block.phase), 2 * block.phase.shape[-2], block.matrix.shape[1]
        phase = phase.conj() if back else phase
        samples, to = x.narrow(-1, start, count), out.narrow(-1, start, count)
        if x.dtype == block.phase.dtype:
            torch.mul(_complex(samples), phase, out=_complex(to))
        else:
            wide = samples.to(torch.promote_types(x.dtype, block.phase.dtype))
            to.copy_(torch.view_as_real(_complex(wide) * phase).flatten(-2))
        if out is not x:
            out.narrow(-1, start + count, width - count).copy_(x.narrow(-1, start + count, width - count))
        start += width


def _complex(x: Tensor) -> Tensor:
    """Real and imaginary parts side by side (…, 2·n) as complex numbers (…, n)."""
    even = x.storage_offset() % 2 == 0 and not any(stride % 2 for stride in x.stride()[:-1])
    return torch.view_as_complex((x if even and x.stride(-1) == 1 else x.contiguous()).unflatten(-1, (-1, 2)))


def _encoded(functions: Tensor, rotations: Rotations, turned: Sequence[bool]) -> tuple[Tensor, ...]:
    """`encode_functions` as one differentiable expression."""
    sizes, encoded = [rotation.heads.stop - rotation.heads.start for rotation in rotations], []
    for rotation, rows in zip(rotations, _rows(functions, rotations).split(sizes), strict=True):
        for of_set, turn in zip(rows.unbind(1), turned, strict=True):
            parts = zip(of_set.unbind(1), rotation.blocks, strict=True)
            values = [part @ block.matrix.to(part.dtype) for part, block in parts]
            if turn:
                values = [_times(part, block.phase, 1) for part, block in zip(values, rotation.blocks, strict=True)]
            encoded.append(torch.cat(values, dim=-1).transpose(0, 1))
    return tuple(encoded)


def _decoded(encoded: Sequence[Tensor], rotations: Rotations, turned: Sequence[bool], coefficients: int) -> Tensor:
    """`decode_functions` as one differentiable expression."""
    sets = []
    for index, turn in enumerate(turned):
        groups = []
        for rotation, x in zip(rotations, encoded[index :: len(turned)], strict=True):
            parts = x.transpose(0, 1).split(rotation.widths, dim=-1)
            if turn:
                parts = [_times(part, block.phase, -1) for part, block in zip(parts, rotation.blocks, strict=True)]
            rows = [part @ block.matrix.to(part.dtype).mT for part, block in zip(parts, rotation.blocks, strict=True)]
            groups.append(torch.stack(rows, dim=1))
        sets.append(torch.cat(groups))
    return _functions(torch.stack(sets, dim=1), coefficients)


def _times(values: Tensor, phase: Tensor, sign: int) -> Tensor:
    """Values (h, b, t, w) with their samples times the phases (b or 1, t, n, 2), or the conjugate of these."""
    samples, others = values.split([2 * phase.shape[-2], values.shape[-1] - 2 * phase.shape[-2]], dim=-1)
    (cos, sin), wide = phase.unbind(-1), samples.to(torch.promote_types(samples.dtype, phase.dtype))
    re, im = wide.reshape(*wide.shape[:-1], phase.shape[-2], 2).unbind(-1)
    turned = torch.stack([re * cos - sign * im * sin, im * cos + sign * re * sin], dim=-1)
    return torch.cat([turned.reshape(samples.shape).to(values.dtype), others], dim=-1)
