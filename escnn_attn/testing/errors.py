"""Relative errors of outputs."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from escnn_attn.testing.actions import Fields

#: norm of an output, relative to the input, below which it is the rounding of a change of basis (float64 in any module)
ROUNDING = 1e-14


def relative_error(actual: Fields, expected: Fields) -> float:
    """The norm of the difference divided by that of `expected`, which must be finite and not zero."""
    a, b = (t if isinstance(t, Tensor) else t.tensor for t in (actual, expected))
    return float((a - b).norm()) / require_norm(b)


def require_norm(x: Tensor) -> float:
    """The norm of an output; an AssertionError if it is zero or not finite."""
    norm = float(x.norm())
    if norm == 0 or not np.isfinite(norm):
        raise AssertionError(f"the output has norm {norm}: a relative error says nothing")
    return norm


def require_signal(out: Fields, inputs: Sequence[Fields]) -> None:
    """An AssertionError for an output that is nothing but the rounding of zero, of which no part follows the input."""
    large = max(float(_channels(x).double().norm()) for x in inputs)
    found = float(_channels(out).double().norm())
    if 0 < found < ROUNDING * large:
        raise AssertionError(
            f"the output is zero up to rounding, of norm {found:.0e} for an input of norm {large:.0e}: the module makes no fields of its "
            "out_type from this input, such as vectors from scalars by distances alone"
        )


def field_error(actual: Fields, expected: Fields, eps: float | None = None) -> float:
    r"""The largest relative error of any field, of any token, and of positions: neither hides beside larger ones.

    Norms below $7\epsilon^{0.3}$ of the largest (6 % in float32) count as rounding: there the error is relative to that bound, so that at the
    tolerances of `assert_equivariant` 50 roundings of the largest are no fault where a scalar crosses zero. Errors of positions are relative to
    the largest distance from their mean.

    Args:
        actual: fields (b, c, …) on a grid or points, or invariants (b, c), each a field of its own.
        expected: of the same kind.
        eps: rounding $\epsilon$ of the computation; None for that of the dtype.

    Raises:
        AssertionError: if `expected` is zero or not finite, or `actual` is of another shape.
    """
    a, b = (_channels(x) for x in (actual, expected))
    if a.shape != b.shape:
        raise AssertionError(f"expected an output of shape {tuple(b.shape)} (tokens, channels), got {tuple(a.shape)}")
    require_norm(b)
    least = min(1.0, 7 * (torch.finfo(b.dtype).eps if eps is None else eps) ** 0.3)
    off, norms = _norms(a - b, expected), _norms(b, expected)
    errors = [x.norm(dim=dim) / _at_least(y.norm(dim=dim), least) for x, y, dim in ((off, norms, 0), (off, norms, 1))]
    return float(np.max([*(float(error.max()) for error in errors), _position_error(actual, expected)]))  # NaN, where one is


def _at_least(norms: Tensor, share: float) -> Tensor:
    return norms.clamp(min=share * float(norms.max()))


def _channels(x: Fields) -> Tensor:
    """Values (tokens, channels)."""
    x = x if isinstance(x, Tensor) else x.tensor
    return x.movedim(1, -1).flatten(0, -2)


def _norms(x: Tensor, like: Fields) -> Tensor:
    """Norms (tokens, fields) of values (tokens, channels)."""
    if isinstance(like, Tensor):
        return x.abs()
    sizes = [rho.size for rho in like.type.representations]
    return torch.stack([part.norm(dim=1) for part in x.split(sizes, dim=1)], dim=1)


def _position_error(actual: Fields, expected: Fields) -> float:
    if isinstance(actual, Tensor) or isinstance(expected, Tensor) or expected.coords is None:
        return 0.0
    if actual.coords is None:
        raise AssertionError("expected an output with coords, got one without")
    spread = (expected.coords - expected.coords.mean(dim=0)).norm(dim=1).max()
    return float((actual.coords - expected.coords).norm(dim=1).max() / spread.clamp(min=torch.finfo(spread.dtype).tiny))
