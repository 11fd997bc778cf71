"""The measurement of equivariance, and assertions of it."""

from collections.abc import Iterable, Iterator
from typing import Literal, TypedDict

import numpy as np
import torch
from escnn.group import GroupElement
from escnn.nn import EquivariantModule, PointwiseDropout
from torch import nn
from typing_extensions import Unpack

from escnn_attn.arguments import require_flag, require_instance, require_integer, require_positive
from escnn_attn.testing.actions import keeps_lattice, lattice_elements, transform
from escnn_attn.testing.errors import field_error, require_signal
from escnn_attn.testing.modules import call, copy_of, input_types
from escnn_attn.testing.motions import motion_errors
from escnn_attn.testing.settings import CLOUDS, Setting, default_sizes, variants
from escnn_attn.testing.tolerances import TOLERANCE, Bounds, exact_tolerance, precision, stated_bounds

Errors = list[tuple[GroupElement, float]]

#: what modules raise for a domain that they do not take, those of this library the first two
REFUSALS = (TypeError, ValueError, RuntimeError, AssertionError, IndexError, NotImplementedError)


class CheckOptions(TypedDict, total=False):
    """Keyword arguments that restrict `assert_equivariant` to a part of what it tests."""

    elements: Iterable[GroupElement] | None
    dtype: torch.dtype
    domain: Literal["points", "grid", "all"]
    size: int
    batch: int
    seed: int
    periodic: bool


def equivariance_error(
    module: EquivariantModule,
    *,
    elements: Iterable[GroupElement] | None = None,
    dtype: torch.dtype = torch.float64,
    domain: Literal["points", "grid"] = "grid",
    size: int = 11,
    batch: int = 2,
    seed: int = 0,
    periodic: bool = False,
) -> Errors:
    r"""Relative error of $f(g x)$ as $g f(x)$, for a module $f$ and elements $g$ of the group: the largest of any field at any token.

    The module is copied, to `dtype` and eval mode; the original is not touched. What an error is relative to, says `field_error`.

    Args:
        module: with `in_type` on the plane (and `context_type`, where it takes two inputs); its output may be a geometric
            tensor or a tensor of invariants.
        elements: None for all elements that act exactly on a grid, or on points for all of a small finite group and
            otherwise 8 random ones.
        dtype: of the computation.
        domain: `"grid"`, a Gaussian random field on size × size pixels, or `"points"`, a random cloud.
        size: side of the grid; the cloud has 4 · size points within a disc of radius 3.
        batch: samples on a grid (a cloud is one sample).
        seed: of input and elements.
        periodic: whether grids repeat: a module that takes `periodic` is called with it, unless `module.periodic` says that it was made so.

    Returns:
        the elements with their errors.

    Raises:
        ValueError: if an element does not act exactly on a grid.
        AssertionError: if the module changes its input, or its output is zero, not finite or not of its `out_type`.
    """
    options = CheckOptions(size=size, dtype=dtype, batch=batch, seed=seed, periodic=periodic)
    setting = _setting(module, _require_domain(domain), options)
    return _measure(module, setting, setting.elements(module) if elements is None else elements)


def assert_equivariant(module: EquivariantModule, *, tolerance: float | None = None, **options: Unpack[CheckOptions]) -> Errors:
    """Asserts that every `equivariance_error` of a module is at most `tolerance`.

    With no further arguments it tests, on grids and on points, as far as the module takes them: all elements that act exactly, on points
    random ones too; even, odd and unequal sides, clouds of two radii; float64 and float32; eval and train mode; translations and the
    order of points. With `periodic=True` it tests grids alone, and cyclic shifts of them; not tested are translations of other grids, whose
    borders are seen.

    Args:
        module: as `equivariance_error` takes it.
        tolerance: None for 1e-10 in float64, 1e-4 in float32 or with tables of escnn, such as kernels, and for elements of a continuous group that do not
            map pixels to pixels `stated_tolerance`, where that is larger.
        options: the other arguments of `equivariance_error`, each of which restricts the test to what it says; `domain` is `"all"` by default.

    Returns:
        the elements with their errors.

    Raises:
        AssertionError: naming the worst element and its error, or what else is wrong (see `equivariance_error`); and if nothing but the
            identity was tested.
        ValueError: if no tolerance is given for a dtype without a default, or it is not positive and finite.

    Examples:
        >>> from escnn_attn import SteerableLinear, fourier_type, planar_gspace
        >>> t = fourier_type(planar_gspace("O2"), 2, 1)
        >>> errors = assert_equivariant(SteerableLinear(t, t))
    """
    if tolerance is None:
        return _assert(module, stated_bounds(module, exact_tolerance(module, _dtype(options))), options)
    return _assert(module, Bounds(*[require_positive("tolerance", tolerance)] * 2), options)


def check_equivariance(module: EquivariantModule, rtol: float, **options: Unpack[CheckOptions]) -> Errors:
    """`assert_equivariant` without a tolerance, or with larger errors `rtol` of what is exact: the method of that name of modules."""
    exact = max(require_positive("rtol", rtol), exact_tolerance(module, _dtype(options)))
    return _assert(module, stated_bounds(module, exact), options)


def _assert(module: EquivariantModule, bounds: Bounds, options: CheckOptions) -> Errors:
    domain, given = _require_domain(options.get("domain", "all"), "all"), options.get("elements")
    given, errors = None if given is None else list(given), []
    for setting in _settings(module, domain, options):
        elements = _elements(module, setting) if given is None else given
        if setting.domain == "grid" and domain == "all":  # on points too, where any element acts
            elements = [g for g in elements if keeps_lattice(input_types(module)[0].gspace, g)]
        errors += _judge(module, setting, bounds, elements)
        _judge_motions(module, setting, bounds.exact)
        few = list(dict.fromkeys([*elements[1:2], *elements[-1:]]))
        for other in _variants(module, setting, options):
            wide = bounds if other.dtype == setting.dtype else bounds.at_least(TOLERANCE[other.dtype])
            errors += _judge(module, other, wide, few)
            if other.periodic:
                _judge_motions(module, other, wide.exact)
    if not errors:
        raise AssertionError(f"no element of {input_types(module)[0].fibergroup} was tested: equivariance was not checked")
    return errors


def _variants(module: EquivariantModule, setting: Setting, options: CheckOptions) -> Iterator[Setting]:
    """Other circumstances to test in, those that a module refuses, or draws other random numbers in, left out."""
    for other in variants(module, setting, sizes="size" not in options, dtypes="dtype" not in options):
        if not (_refused(module, other, ValueError) if other.size != setting.size else _is_random(module, other)):
            yield other


def _require_domain(domain: str, *more: str) -> str:
    """Returns the name of a domain; a ValueError for others."""
    if domain not in ("points", "grid", *more):
        raise ValueError(f'expected the domain "points" or "grid", got {domain!r}')
    return domain


def _settings(module: EquivariantModule, domain: str, options: CheckOptions) -> list[Setting]:
    """A setting for each domain that is asked for, or for "all" each that the module takes."""
    if domain != "all" or options.get("periodic"):
        return [_setting(module, "grid" if domain == "all" else domain, options)]
    settings = [_setting(module, name, options) for name in ("grid", "points")]
    taken = [setting for setting in settings if not _refused(module, setting, _refusals(module))] or settings[:1]
    seen = [setting for setting in taken if any(g != g.group.identity for g in setting.elements(module))]
    return seen or taken


def _setting(module: EquivariantModule, domain: str, options: CheckOptions) -> Setting:
    size, dtype = default_sizes(module, domain)[0], _dtype(options)
    if "size" in options:
        side = require_integer("size", options["size"])
        size = (side, side) if domain == "grid" else (4 * side, CLOUDS[0][1])
    batch, seed = (require_integer(name, options.get(name, default), 0) for name, default in (("batch", 2), ("seed", 0)))
    periodic = require_flag("periodic", options.get("periodic", False))
    if periodic and domain == "points":
        raise ValueError('expected the domain "grid" for periodic=True, got "points"')
    return Setting(domain, size, dtype, batch=batch, seed=seed, periodic=periodic)


def _dtype(options: CheckOptions) -> torch.dtype:
    return require_instance("dtype", options.get("dtype", torch.float64), torch.dtype)


def _refusals(module: EquivariantModule) -> tuple[type[Exception], ...]:
    """What a module raises for a domain that it does not take: those of other libraries leave it to torch."""
    foreign = any(isinstance(part, EquivariantModule) and not _is_ours(part) for part in module.modules())
    return REFUSALS if foreign or not _is_ours(module) else REFUSALS[:2]


def _is_ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith("escnn_attn.")


def _refused(module: EquivariantModule, setting: Setting, refusals: type[Exception] | tuple[type[Exception], ...]) -> bool:
    """Whether a module raises an exception of given types for a setting."""
    try:
        with torch.no_grad():
            copy_of(module, setting.dtype)(*setting.inputs(module), **setting.options(module))
    except refusals:
        return True
    return False


def _is_random(module: EquivariantModule, setting: Setting) -> bool:
    """Whether a module draws for each pixel or sample, so that equal seeds do not draw alike for what is moved."""
    if not setting.training:
        return False
    if setting.domain == "points":  # which do not change places: only draws for each component of a field differ
        return any(isinstance(part, PointwiseDropout) for part in module.modules())
    inputs, fresh = setting.inputs(module), copy_of(module, setting.dtype, training=True)
    first, second = (call(fresh, inputs, seed, **setting.options(module)) for seed in range(2))
    return field_error(first, second) > 0


def _elements(module: EquivariantModule, setting: Setting) -> list[GroupElement]:
    """The elements to test, on points also those that are exact on grids; an AssertionError if they say nothing."""
    space, elements = input_types(module)[0].gspace, setting.elements(module)
    if space.fibergroup.continuous and setting.domain == "points":
        elements += lattice_elements(space)
    if space.fibergroup.order() != 1 and all(g == space.fibergroup.identity for g in elements):
        raise AssertionError(
            f"the only element of {space.fibergroup} that maps pixels to pixels is the identity: equivariance was not checked; test on "
            "points, or with a group that has half or quarter turns"
        )
    return elements


def _measure(module: EquivariantModule, setting: Setting, elements: Iterable[GroupElement]) -> Errors:
    inputs, tested = setting.inputs(module), copy_of(module, setting.dtype, setting.training)
    options, eps = setting.options(module), torch.finfo(precision(module, setting.dtype)).eps
    reference = call(tested, inputs, **options)
    require_signal(reference, inputs)
    moved = ((g, call(tested, [transform(x, g) for x in inputs], **options)) for g in elements)
    return [(g, field_error(out, transform(reference, g), eps)) for g, out in moved]


def _judge(module: EquivariantModule, setting: Setting, bounds: Bounds, elements: list[GroupElement]) -> Errors:
    """Measured errors; an AssertionError for the one that exceeds its bound most."""
    errors, space = _measure(module, setting, elements), input_types(module)[0].gspace
    excess = [error / bounds.of(space, g) for g, error in errors]
    worst = int(np.argmax(np.nan_to_num(excess, nan=np.inf))) if errors else 0
    if errors and not excess[worst] <= 1:
        g, error = errors[worst]
        raise AssertionError(
            f"{type(module).__name__} is not equivariant: relative error {error:.2e} > {bounds.of(space, g):.2e} for the element {g} of "
            f"{space.fibergroup} ({setting})"
        )
    return errors


def _judge_motions(module: EquivariantModule, setting: Setting, bound: float) -> None:
    """An AssertionError if a module does not commute with the motions of a setting."""
    for fault, error in motion_errors(module, setting).items():
        if not error <= bound:
            raise AssertionError(f"{type(module).__name__} {fault}: relative error {error:.2e} > {bound:.2e} ({setting})")
