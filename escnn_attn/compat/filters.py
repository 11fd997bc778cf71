"""Expanded filters of escnn's modules: made anew when weights change, in neither mode part of a `state_dict`."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from escnn_attn.modes import keepable

T = TypeVar("T", bound=nn.Module)
Shared = TypeVar("Shared")


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
        plain_indices(conv.basisexpansion)
        for name in _EXPANDED:  # which a new convolution has in either mode
            conv._buffers.pop(name, None)
        if _expand_before not in conv._forward_pre_hooks.values():
            conv.register_forward_pre_hook(_expand_before)
            conv.register_forward_hook(_restore_after, always_call=True)
    _settle(module)


def plain_indices(expansion: T) -> T:
    """A basis expansion of escnn with indices as numbers: its lists of tensors are nothing that compilers can read numbers from."""
    for name, value in vars(expansion).items():
        if name.startswith(("in_indices_", "out_indices_")):
            setattr(expansion, name, [int(index) for index in value])
    return expansion


def kept_filter(conv: Any, key: Hashable, make: Callable[[], Shared]) -> Shared:
    """What `make` expands from the weights of a convolution; in eval mode kept, where no gradients are asked for, until they change."""
    if conv.training or not _keeps(conv):
        return make()
    kept, weights = vars(conv).setdefault("_kept", {}), _weights(conv)
    if key not in kept or not _unchanged(kept[key][0], weights):
        with _as_constants(weights[0]):
            kept[key] = [part.detach().clone() for part in weights], make()
    return kept[key][1]


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
    """Those of escnn that expand their filters on a change of the mode."""
    return (child for child in module.modules() if hasattr(child, "basisexpansion") and not hasattr(child, "centered"))


def _weights(conv: Any) -> list[Tensor]:
    return [part for part in (conv.weights, conv.bias) if part is not None]


def _expand(conv: Any) -> None:
    """Stores the filters of a convolution as constants, unless those of its weights are there already."""
    for name in _EXPANDED:
        conv._buffers.pop(name, None)
    weights, before = _weights(conv), vars(conv).get("_expanded_from", ())
    # not by expanded_bias, which escnn sets to None for a convolution without
    kept = len(before) == len(weights) and not vars(conv).keys().isdisjoint(("filter", "matrix"))
    if kept and _unchanged(before, weights):
        return
    with _as_constants(weights[0]):
        expanded, bias = conv.expand_parameters()
        copies = [part.detach().clone() for part in weights]
    name = "matrix" if expanded.dim() == 2 else "filter"
    vars(conv).update({name: expanded, "expanded_bias": bias, "_expanded_from": copies})


@contextmanager
def _as_constants(like: Tensor) -> Iterator[None]:
    """For later calls of any kind: with gradients, and outside autocast."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        yield


def _unchanged(before: Sequence[Tensor], weights: Sequence[Tensor]) -> bool:
    """By their values: `.data.copy_` and the like leave no other trace."""
    return all(a.dtype == b.dtype and a.device == b.device and torch.equal(a, b) for a, b in zip(before, weights, strict=True))


def _keeps(conv: Any) -> bool:
    """Whether expanded weights may be kept in eval mode: no gradient goes to them, and a comparison does not have to wait for a GPU."""
    weights = _weights(conv)
    learning = torch.is_grad_enabled() and any(part.requires_grad for part in weights)
    return keepable() and not learning and all(part.device.type == "cpu" for part in weights)


def _expand_before(conv: Any, _inputs: object) -> None:
    if conv.training:
        return
    if _keeps(conv):
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
        for name in _EXPANDED:
            conv._buffers.pop(name, None)
    _leave_out_filters(module, state, prefix, {})
