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
        rows, encoded = _rows(functions, rotations).flatten(3, 4), []
        for rotation in rotations:
            for of_heads in rows[:, rotation.heads]:
                out = rows.new_empty(len(of_heads), b, t, sum(rotation.widths))
                for source, matrix, part in zip(of_heads.unbind(1), *_parts(rotation, out), strict=True):
                    torch.bmm(source, matrix, out=part)
                if turned[len(encoded) % sets]:
                    _turn(out, rotation, out)
                encoded.append(out.transpose(0, 1))
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
        heads = sum(x.shape[1] for x in encoded[::sets])
        blocks, size = len(rotations[0].blocks), len(rotations[0].blocks[0].matrix)
        rows = encoded[0].new_empty(sets, heads, blocks, b * t, size)
        for number, x in enumerate(encoded):
            rotation, index = rotations[number // sets], number % sets
            back = x.new_empty(x.shape[1], b, t, x.shape[3])
            if turned[index]:
                _turn(x.transpose(0, 1), rotation, back, back=True)
            else:
                back.copy_(x.transpose(0, 1))
            for out, matrix, part in zip(rows[index, rotation.heads].unbind(1), *_parts(rotation, back), strict=True):
                torch.bmm(part, matrix.mT, out=out)
        return _functions(rows.unflatten(3, (b, t)), coefficients)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        encode = _encoded if batched(grads) else encode_functions
        return None, None, None, *encode(grads[0], *ctx.arguments)


def _rows(functions: Tensor, rotations: Rotations) -> Tensor:
    """Functions (b, t, r, k, h, c) as (k, h, block, b, t, r·2·p): side by side what a matrix of a block takes."""
    (b, t, r, sets, heads, channels), blocks = functions.shape, len(rotations[0].blocks)
    parts = functions.reshape(b, t, r, sets, heads, 2, blocks, channels // (2 * blocks))
    return parts.permute(3, 4, 6, 0, 1, 2, 5, 7).reshape(sets, heads, blocks, b, t, r * channels // blocks)


def _functions(rows: Tensor, coefficients: int) -> Tensor:
    """The inverse of `_rows`."""
    sets, heads, blocks, b, t, size = rows.shape
    parts = rows.reshape(sets, heads, blocks, b, t, coefficients, 2, size // (2 * coefficients))
    return parts.permute(3, 4, 5, 0, 1, 6, 2, 7).reshape(b, t, coefficients, sets, heads, blocks * size // coefficients)


def _parts(rotation: Rotation, encoded: Tensor) -> tuple[list[Tensor], Sequence[Tensor]]:
    """For each block the matrix of each head, and the part (h, b·t, w) of encoded heads (h, b, t, width)."""
    matrices = [block.matrix.to(encoded.dtype).expand(len(encoded), -1, -1) for block in rotation.blocks]
    return matrices, encoded.flatten(1, 2).split(rotation.widths, dim=-1)


def _turn(x: Tensor, rotation: Rotation, out: Tensor, back: bool = False) -> None:
    """Writes encoded heads (h, b, t, width) times their phases, or the conjugate of these, to `out`, which may be x."""
    for block, source, target in zip(
        rotation.blocks, x.split(rotation.widths, -1), out.split(rotation.widths, -1), strict=True
    ):
        phase, count = torch.view_as_complex(block.phase), 2 * block.phase.shape[-2]
        phase = phase.conj() if back else phase
        samples, to = source[..., :count], target[..., :count]
        if samples.dtype == block.phase.dtype:
            torch.mul(_complex(samples), phase, out=_complex(to))
        else:
            to.copy_(torch.view_as_real(_complex(samples.to(block.phase.dtype)) * phase).flatten(-2))
        if out is not x:
            target[..., count:].copy_(source[..., count:])


def _complex(x: Tensor) -> Tensor:
    """Real and imaginary parts side by side (…, 2·n) as complex numbers (…, n)."""
    even = x.storage_offset() % 2 == 0 and not any(stride % 2 for stride in x.stride()[:-1])
    return torch.view_as_complex((x if even and x.stride(-1) == 1 else x.contiguous()).unflatten(-1, (-1, 2)))


def _encoded(functions: Tensor, rotations: Rotations, turned: Sequence[bool]) -> tuple[Tensor, ...]:
    """`encode_functions` as one differentiable expression."""
    sizes, encoded = [rotation.heads.stop - rotation.heads.start for rotation in rotations], []
    for rotation, rows in zip(rotations, _rows(functions, rotations).split(sizes, dim=1), strict=True):
        for of_heads, turn in zip(rows.unbind(), turned, strict=True):
            parts = zip(of_heads.unbind(1), rotation.blocks, strict=True)
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
    return _functions(torch.stack(sets), coefficients)


def _times(values: Tensor, phase: Tensor, sign: int) -> Tensor:
    """Values (h, b, t, w) with their samples times the phases (b or 1, t, n, 2), or the conjugate of these."""
    samples, others = values.split([2 * phase.shape[-2], values.shape[-1] - 2 * phase.shape[-2]], dim=-1)
    (cos, sin), wide = phase.unbind(-1), samples.to(phase.dtype)
    re, im = wide.reshape(*wide.shape[:-1], phase.shape[-2], 2).unbind(-1)
    turned = torch.stack([re * cos - sign * im * sin, im * cos + sign * re * sin], dim=-1)
    return torch.cat([turned.reshape(samples.shape).to(values.dtype), others], dim=-1)
