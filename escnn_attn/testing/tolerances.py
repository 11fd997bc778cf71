"""How large an error may be."""

from dataclasses import dataclass

import escnn.nn
import torch
from escnn.group import GroupElement
from escnn.gspaces import GSpace
from torch import nn

from escnn_attn.testing.actions import keeps_lattice
from escnn_attn.testing.modules import input_types

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
#: the largest default tolerance, whatever the parts of a module state
LARGEST_TOLERANCE = 1e-2
#: parts of escnn that sample functions on the group, without a word of how finely
SAMPLED = (escnn.nn.FourierPointwise, escnn.nn.QuotientFourierPointwise)


class Approximate:
    """Mixin of modules that are equivariant to continuous groups up to a stated error."""

    @property
    def equivariance_tolerance(self) -> float:
        """Relative error under continuous elements, for typical inputs; 0 for exact modules."""
        return 0.0


@dataclass(frozen=True)
class Bounds:
    """The largest errors that pass.

    Attributes:
        exact: of elements that map a pixel lattice to itself (those of finite groups are all exact), and of translations.
        sampled: of the other elements of a continuous group, for which functions on the group are sampled.
    """

    exact: float
    sampled: float

    def of(self, gspace: GSpace, element: GroupElement) -> float:
        """The largest error of an element."""
        return self.exact if keeps_lattice(gspace, element) else self.sampled

    def at_least(self, bound: float) -> "Bounds":
        """The same, where larger than a bound."""
        return Bounds(max(self.exact, bound), max(self.sampled, bound))


def precision(module: nn.Module, dtype: torch.dtype) -> torch.dtype:
    """The dtype that a module computes in, as far as rounding goes: float32 at most, if escnn made tables of it."""
    parts = (part for part in module.modules() if type(part).__module__.startswith("escnn."))
    tables = any(buffer.is_floating_point() for part in parts for buffer in part.buffers(recurse=False))
    return torch.float32 if tables and dtype == torch.float64 else dtype


def exact_tolerance(module: nn.Module, dtype: torch.dtype) -> float:
    """The tolerance of a computation in a dtype without approximations; a ValueError for dtypes without a default."""
    if dtype not in TOLERANCE:
        raise ValueError(f"expected a tolerance for {dtype}: only {[str(known) for known in TOLERANCE]} have one by default")
    return TOLERANCE[precision(module, dtype)]


def stated_bounds(module: nn.Module, exact: float) -> Bounds:
    """Bounds with `stated_tolerance` where it is larger than what is exact."""
    return Bounds(exact, max(exact, stated_tolerance(module)))


def stated_tolerance(module: nn.Module) -> float:
    """Ten times the largest `equivariance_tolerance` of the parts of a module, at most 1e-2; 0 for finite groups."""
    if not input_types(module)[0].fibergroup.continuous:
        return 0.0
    if any(isinstance(part, SAMPLED) for part in module.modules()):
        return LARGEST_TOLERANCE
    stated = (part.equivariance_tolerance for part in module.modules() if isinstance(part, Approximate))
    return min(10 * max(stated, default=0.0), LARGEST_TOLERANCE)
