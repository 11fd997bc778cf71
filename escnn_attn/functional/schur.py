r"""Equivariant linear maps on plain tensors, by Schur's lemma.

For each irrep $\psi$ that input and output share, $y_\psi = x_\psi A$, or $y_\psi = x_\psi A + (J x_\psi) B$ where $\psi$ is of
complex type, which commutes with $J = [[0, -1], [1, 0]]$: the product of complex matrices $(x_1 + i x_2)(A + i B)$. Inputs and
outputs are isotypic features or functions on the group; each product is written to its final place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from escnn_attn.fields import Features, Irreps
from escnn_attn.functional.autograd import Gradients, autocasted, batched, differentiate
from escnn_attn.modes import plain_operations


@dataclass(frozen=True)
class IsotypicFeatures:
    """Memory layout of irreps as one tensor (d, b, t, m) per irrep, in memory as (b, t, d, m)."""

    irreps: Irreps

    @property
    def num_tensors(self) -> int:
        return len(self.irreps.ids)

    def empty(self, like: Tensor, tokens: tuple[int, int]) -> Features:
        shapes = zip(self.irreps.dims, self.irreps.multiplicities, strict=True)
        return tuple(like.new_empty(*tokens, d, m).permute(2, 0, 1, 3) for d, m in shapes)

    def tokens(self, tensors: Features) -> tuple[int, int]:
        """Batch size and number of tokens."""
        return tensors[0].shape[1], tensors[0].shape[2]

    def blocks(self, tensors: Features) -> list[list[Tensor]]:
        """Views of the tensors: for each irrep, blocks (d, b·t, width) of its copies."""
        return [[x.flatten(1, 2)] for x in tensors]

    def join(self, blocks: list[Tensor], tokens: tuple[int, int]) -> Features:
        """The tensors of all copies (d, b·t, m) of each irrep."""
        return tuple(x.unflatten(1, tokens) for x in blocks)


@dataclass(frozen=True)
class GroupFunctions(IsotypicFeatures):
    """Memory layout of functions on the group as one tensor (b, t, r, c) of coefficients.

    Attributes:
        irreps: of all functions.
        function: of one function; its rows r are in escnn's order: irrep, copy, component.
    """

    function: Irreps

    @property
    def num_tensors(self) -> int:
        return 1

    @property
    def channels(self) -> int:
        return self.irreps.multiplicities[0] // self.function.multiplicities[0]

    def empty(self, like: Tensor, tokens: tuple[int, int]) -> Features:
        return (like.new_empty(*tokens, self.function.size, self.channels),)

    def tokens(self, tensors: Features) -> tuple[int, int]:
        return tensors[0].shape[0], tensors[0].shape[1]

    def blocks(self, tensors: Features) -> list[list[Tensor]]:
        dims, copies = self.function.dims, self.function.multiplicities
        irreps = tensors[0].flatten(0, 1).transpose(0, 1).split([d * j for d, j in zip(dims, copies, strict=True)])
        return [list(rows.split(d)) for rows, d in zip(irreps, dims, strict=True)]

    def join(self, blocks: list[Tensor], tokens: tuple[int, int]) -> Features:
        rows = [part for x, j in zip(blocks, self.function.multiplicities, strict=True) for part in x.chunk(j, dim=-1)]
        return (torch.cat(rows).transpose(0, 1).unflatten(0, tokens),)


@dataclass(frozen=True)
class LinearPlan:
    """Which irreps a linear map takes to which.

    Attributes:
        source: layout of the input.
        target: layout of the output.
        pairs: (index in the source, index in the target) of the irreps in both, in the order of the weights.
    """

    source: IsotypicFeatures
    target: IsotypicFeatures
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def between(cls, source: IsotypicFeatures, target: IsotypicFeatures) -> "LinearPlan":
        """The plan of every equivariant map from one layout to another."""
        ids = source.irreps.ids
        return cls(source, target, tuple((ids.index(psi), b) for b, psi in enumerate(target.irreps.ids) if psi in ids))

    def transposed(self) -> "LinearPlan":
        return LinearPlan(self.target, self.source, tuple((b, a) for a, b in self.pairs))


def isotypic_linear(plan: LinearPlan, tensors: Features, weights: Sequence[Tensor], bias: Tensor | None = None) -> Features:
    """The equivariant linear map of a plan.

    Args:
        plan: the layouts of input and output, and the irreps in both.
        tensors: in the plan's source layout.
        weights: for each pair of the plan the matrix A, (1, m, m'), or A and B, (2, m, m').
        bias: (m',) of the trivial irrep.

    Returns:
        tensors in the plan's target layout; zero for irreps that only the output has.
    """
    tensors, weights = autocasted(*tensors), autocasted(*weights) if weights else ()
    bias = None if bias is None else bias.to(tensors[0].dtype)
    if plain_operations():
        return _differentiable(plan, bias, *tensors, *weights)
    return SchurMap.apply(plan, bias, *tensors, *weights)


class SchurMap(torch.autograd.Function):
    """The map of a plan, each product written to its place; the gradient of its input is the map of the transposed plan."""

    @staticmethod
    def forward(ctx: Any, plan: LinearPlan, bias: Tensor | None, *inputs: Tensor) -> Features:
        tensors, weights = inputs[: plan.source.num_tensors], inputs[plan.source.num_tensors :]
        matrices = [_matrix(weight) for weight in weights]
        ctx.plan = plan
        ctx.save_for_backward(bias, *inputs, *matrices)
        return _mapped(plan, bias, tensors, matrices)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        plan, count, (bias, *saved) = ctx.plan, ctx.plan.source.num_tensors, ctx.saved_tensors
        inputs, matrices = saved[: count + len(ctx.plan.pairs)], saved[count + len(ctx.plan.pairs) :]
        if batched(grads):
            return None, *differentiate(partial(_differentiable, plan), (bias, *inputs), ctx.needs_input_grad[1:], grads)
        tensors, weights = inputs[:count], inputs[count:]
        by_bias, by_input, by_weight = None, [None] * count, [None] * len(weights)
        targets = plan.target.blocks(grads)
        if ctx.needs_input_grad[1]:
            by_bias = torch.cat([out.sum(dim=(0, 1)) for out in targets[plan.target.irreps.trivial_index]])
        if any(ctx.needs_input_grad[2 : 2 + count]):
            if torch.is_grad_enabled():  # to be differentiated once more
                by_input = SchurMap.apply(plan.transposed(), None, *grads, *(_adjoint(w) for w in weights))
            else:
                by_input = _mapped(plan.transposed(), None, grads, [matrix.mT for matrix in matrices])
        if any(ctx.needs_input_grad[2 + count :]):
            sources = plan.source.blocks(tensors)
            by_weight = [_by_weight(sources[a], targets[b], len(w)) for (a, b), w in zip(plan.pairs, weights, strict=True)]
        return None, by_bias, *by_input, *by_weight


def _mapped(plan: LinearPlan, bias: Tensor | None, tensors: Features, matrices: Sequence[Tensor]) -> Features:
    """The map of a plan with the `_matrix` of each weight."""
    outputs = plan.target.empty(tensors[0], plan.source.tokens(tensors))
    sources, targets = plan.source.blocks(tensors), plan.target.blocks(outputs)
    reached = {b for _, b in plan.pairs}
    for out in (out for b, blocks in enumerate(targets) if b not in reached for out in blocks):
        out.zero_()
    with torch.autocast(tensors[0].device.type, enabled=False):
        for (a, b), matrix in zip(plan.pairs, matrices, strict=True):
            _multiply(sources[a], matrix, targets[b])
    trivial = plan.target.irreps.trivial_index
    if bias is not None and trivial is not None:
        for out, part in zip(targets[trivial], bias.chunk(len(targets[trivial])), strict=True):
            out += part
    return outputs


def _multiply(sources: list[Tensor], matrix: Tensor, targets: list[Tensor]) -> None:
    """Writes the product of blocks (d, t, m) and the `_matrix` of a weight to blocks (d, t, m')."""
    if len(matrix) > sum(x.shape[2] for x in sources):  # of complex type, which a function has once
        (x,), (out,) = sources, targets
        torch.mm(_side_by_side(x), matrix, out=_side_by_side(out))
        return
    rows = matrix.split([x.shape[2] for x in sources])
    for index, (x, of_source) in enumerate(zip(sources, rows, strict=True)):
        for out, part in zip(targets, of_source.split([out.shape[2] for out in targets], dim=1), strict=True):
            for component, result in zip(x, out, strict=True):
                result.addmm_(component, part, beta=int(index > 0))


def _matrix(weight: Tensor) -> Tensor:
    """The real matrix of a weight: that of (1, m, m') itself, of a complex one (2, m, m') what it does to both parts side by side, (2·m, 2·m')."""
    if len(weight) == 1:
        return weight[0]
    a, b = weight
    return torch.cat([torch.cat([a, b], dim=1), torch.cat([-b, a], dim=1)])


def _side_by_side(x: Tensor) -> Tensor:
    """Real and imaginary parts (2, t, m) as rows (t, 2·m), a view where features have their layout."""
    return x.transpose(0, 1).flatten(1)


def _adjoint(weight: Tensor) -> Tensor:
    return weight.mT if len(weight) == 1 else torch.stack([weight[0].mT, -weight[1].mT])


def _by_weight(sources: list[Tensor], targets: list[Tensor], kinds: int) -> Tensor:
    """The gradient of a weight (k, Σ m, Σ m') from blocks (d, t, m) of the input and (d, t, m') of the output's gradient."""
    if kinds == 2:
        (x,), (g,) = sources, targets
        (of_re, to_im), (to_re, of_im) = (
            half.chunk(2, dim=1) for half in (_side_by_side(x).mT @ _side_by_side(g)).chunk(2)
        )  # products of real and imaginary parts with those of the gradient
        return torch.stack([of_re + of_im, to_im - to_re])
    rows = []
    for x in sources:
        row = []
        for g in targets:
            total = x[0].mT @ g[0]
            for component, grad in zip(x[1:], g[1:], strict=True):
                total = torch.addmm(total, component.mT, grad)
            row.append(total)
        rows.append(row[0] if len(row) == 1 else torch.cat(row, dim=1))
    return (rows[0] if len(rows) == 1 else torch.cat(rows))[None]


def _differentiable(plan: LinearPlan, bias: Tensor | None, *inputs: Tensor) -> Features:
    """The map of a plan in operations that a compiler differentiates and fuses."""
    tensors, weights = inputs[: plan.source.num_tensors], inputs[plan.source.num_tensors :]
    tokens = plan.source.tokens(tensors)
    sources = [parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1) for parts in plan.source.blocks(tensors)]
    mapped: dict[int, Tensor] = {}
    for (a, b), weight in zip(plan.pairs, weights, strict=True):
        if len(weight) == 1:
            mapped[b] = sources[a] @ weight[0]
            continue
        (re, im), (real, imaginary) = sources[a], weight
        common = (re + im) @ real
        mapped[b] = torch.stack([common - im @ (real + imaginary), common + re @ (imaginary - real)])
    trivial = plan.target.irreps.trivial_index
    if bias is not None and trivial is not None:
        mapped[trivial] = mapped.get(trivial, 0) + bias.expand(1, sources[0].shape[1], -1)
    irreps = plan.target.irreps
    empty = [sources[0].new_zeros(d, sources[0].shape[1], m) for d, m in zip(irreps.dims, irreps.multiplicities, strict=True)]
    return plan.target.join([mapped.get(b, zero) for b, zero in enumerate(empty)], tokens)
