"""Which modes of torch are on: compilers, transforms and pretended tensors change what may be computed and kept."""

import warnings
from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import TypeVar

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports] (torch has no public names for them)
from torch.autograd import forward_ad


def recorded() -> bool:
    """Whether a compiler, an export or a trace records what happens, for other inputs than those at hand."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def plain_operations() -> bool:
    """Whether a compiler, a trace, a transform of `torch.func` or forward-mode differentiation runs: they need operations that they know."""
    return (
        recorded() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    )


def keepable() -> bool:
    """Whether tensors made now may be kept for later calls: they are neither pretended, traced nor batched."""
    return not plain_operations() and torch._C._len_torch_dispatch_stack() == 0


def readable(x: Tensor) -> bool:
    """Whether numbers can be read from a tensor: it is neither traced nor a sample of a batch of `torch.func.vmap`."""
    if recorded():
        return False
    while is_functorch_wrapped_tensor(x):
        if is_batchedtensor(x):
            return False
        x = get_unwrapped(x)
    return True


R = TypeVar("R")
T = TypeVar("T")


def constant_result(function: Callable[..., R]) -> Callable[..., R]:
    """As `torch.compiler.assume_constant_result`, which would take seconds to import the compiler."""
    function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


#: functions without arguments, each of which gives one constant of a compiled graph, by their names
_constants = SimpleNamespace()


def fixed(function: Callable[..., R]) -> Callable[..., R]:
    """Lets compilers take the results of a function of plain numbers, which may be tensors, for constants, without a look inside."""
    names: dict[tuple, str] = {}

    @constant_result
    def name_of(arguments: tuple) -> str:  # in one tuple, as named tuples alone would arrive empty
        if arguments not in names:
            name = f"constant_{len(vars(_constants))}"
            setattr(_constants, name, _constant(name, function(*arguments)))
            names[arguments] = name
        return names[arguments]

    @wraps(function)
    def called(*arguments: object) -> R:
        if torch.compiler.is_dynamo_compiling():
            return getattr(_constants, name_of(arguments))()
        return function(*arguments)

    return called


def _constant(name: str, result: R) -> Callable[[], R]:
    """A function that gives `result`, under a name that compilers see nowhere else: to them equal names are equal tensors."""

    def call() -> R:
        return result

    call.__code__ = call.__code__.replace(co_name=name)
    return constant_result(call)


def plain_number(size: int) -> int:
    """A height or width as a plain number, for which compilers make a graph of its own; also where `torch.jit.trace` records it."""
    if torch.jit.is_tracing():
        with warnings.catch_warnings():  # that it stays as it is: what is exported refuses other sizes
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            return int(size)
    return len(range(size))


def kept_open(*sizes: int) -> bool:
    """Whether an export keeps one of some sizes open, so that no number follows from it."""
    if not torch.compiler.is_exporting():
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value  # here, as it would take seconds to import the compiler

    return not all(has_static_value(size) for size in sizes)


def any_sizes(compiled: Callable[[T], R]) -> Callable[[T], R]:
    """A compiled function whose graphs are for sizes that differ later though equal at first, as a batch of 4 beside 4 copies."""
    from torch.fx.experimental import _config  # here, for the same reason

    def call(x: T) -> R:
        if recorded():  # compilers look inside, and do not know such settings
            return compiled(x)
        with _config.patch(use_duck_shape=False):  # pyright: ignore[reportAttributeAccessIssue] (torch adds it at run time)
            return compiled(x)

    return call
