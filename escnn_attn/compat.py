"""Guards against known faults of escnn 1.0.11, applied once when `escnn_attn` is imported."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

if int(np.__version__.split(".")[0]) >= 2:
    raise ImportError(
        f"escnn 1.0.11 needs numpy < 2, and numpy {np.__version__} is installed (under numpy 2 escnn imports "
        'without any of its submodules); run: pip install "numpy<2"'
    )

import escnn.group._numerical
import torch
from escnn.nn import FieldType
from torch import Tensor, nn

from escnn_attn.modes import keepable

T = TypeVar("T", bound=nn.Module)

# escnn issue 112: the randomized solver of scikit-learn, when it is importable, returns np.matrix and kernel bases
# of O(2) and D_N crash. Without it escnn takes scipy's, which works.
escnn.group._numerical.randomized_svd = None


def _share(field_type: FieldType, memo: dict) -> FieldType:
    """Field types are immutable: a copied module keeps the same one, and type checks stay comparisons by identity."""
    memo[id(field_type)] = field_type
    return field_type


FieldType.__deepcopy__ = _share  # pyright: ignore[reportAttributeAccessIssue]


def made_by_escnn(make: Callable[[], T]) -> T:
    """A module with modules of escnn inside, whatever the default dtype and device: escnn makes kernels in float32 on the CPU."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            module = make()
    finally:
        torch.set_default_dtype(dtype)
    return module.to(dtype=dtype, device=device)


def tend_filters(module: nn.Module) -> None:
    """Keeps the expanded filters of escnn's convolutions and linear maps in a module those of its weights.

    In eval mode escnn holds the filters that belonged to the weights on entering it, as buffers. So they go stale when weights
    change, no second backward pass goes through them, and `state_dict` and `buffers()` differ between the modes (escnn issue
    1). Here they are no buffers; they are expanded anew where weights have changed, and for each call that wants gradients.
    """
    module.register_load_state_dict_pre_hook(_ignore_filters)
    module.register_state_dict_post_hook(_leave_out_filters)
    for conv in _convolutions(module):
        for name, value in vars(conv.basisexpansion).items():
            if name.startswith(("in_indices_", "out_indices_")):  # lists of tensors, which compilers cannot read numbers from
                setattr(conv.basisexpansion, name, [int(index) for index in value])
        for name in _EXPANDED:  # which a new convolution has in either mode
            conv._buffers.pop(name, None)
        if _expand_before not in conv._forward_pre_hooks.values():
            conv.register_forward_pre_hook(_expand_before)
            conv.register_forward_hook(_restore_after, always_call=True)
    _settle(module)


@contextmanager
def change_of_mode(module: nn.Module) -> Iterator[None]:
    """Around `super().train(mode)` of a module with tended filters: escnn expands as constants, and what it makes is put away."""
    for conv in _convolutions(module):
        for name in _EXPANDED:
            vars(conv).pop(name, None)
    with torch.no_grad():
        yield
    _settle(module)


def _settle(module: nn.Module) -> None:
    for conv in _convolutions(module):
        if not conv.training:
            _expand(conv)


#: what escnn calls the expanded weights
_EXPANDED = ("filter", "matrix", "expanded_bias")


def _convolutions(module: nn.Module) -> Iterator[Any]:
    return (child for child in module.modules() if hasattr(child, "basisexpansion"))


def _weights(conv: Any) -> list[Tensor]:
    return [part for part in (conv.weights, conv.bias) if part is not None]


def _expand(conv: Any) -> None:
    """Stores the filters of a convolution as constants, unless those of its weights are there already."""
    for name in _EXPANDED:
        conv._buffers.pop(name, None)
    weights = _weights(conv)
    counted = not any(part.is_inference() for part in weights)  # such tensors do not count their changes
    state = [(id(part), part._version, part.dtype, part.device) for part in weights] if counted else None
    stored = vars(conv).keys() & set(_EXPANDED)
    if not stored or state is None or state != vars(conv).get("_expanded_from"):
        with torch.inference_mode(False), torch.no_grad():
            expanded, bias = conv.expand_parameters()
        name = "matrix" if expanded.dim() == 2 else "filter"
        vars(conv).update({name: expanded, "expanded_bias": bias, "_expanded_from": state})


def _expand_before(conv: Any, _inputs: object) -> None:
    if conv.training:
        return
    if keepable() and not (torch.is_grad_enabled() and any(part.requires_grad for part in _weights(conv))):
        _expand(conv)
    else:  # as in training, where escnn expands in the call itself
        conv.training = vars(conv)["_expands_itself"] = True


def _restore_after(conv: Any, *_: object) -> None:
    if vars(conv).pop("_expands_itself", False):
        conv.training = False


def _filter_keys(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_modules(prefix=prefix.removesuffix(".")):
        if hasattr(child, "basisexpansion"):
            yield from (f"{name}.{buffer}".removeprefix(".") for buffer in _EXPANDED)


def _leave_out_filters(module: nn.Module, state: dict, prefix: str, _metadata: dict) -> None:
    for key in _filter_keys(module, prefix):
        state.pop(key, None)


def _ignore_filters(module: nn.Module, state: dict, prefix: str, *_: object) -> None:
    for conv in _convolutions(module):
        vars(conv).pop("_expanded_from", None)
        for name in _EXPANDED:
            conv._buffers.pop(name, None)
    _leave_out_filters(module, state, prefix, {})
