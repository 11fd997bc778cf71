"""Guards against known faults of escnn 1.0.11, applied once when `escnn_attn` is imported."""

from collections.abc import Iterator

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

# escnn issue 112: the randomized solver of scikit-learn, when it is importable, returns np.matrix and kernel bases
# of O(2) and D_N crash. Without it escnn takes scipy's, which works.
escnn.group._numerical.randomized_svd = None


def _share(field_type: FieldType, memo: dict) -> FieldType:
    """Field types are immutable: a copied module keeps the same one, and type checks stay comparisons by identity."""
    memo[id(field_type)] = field_type
    return field_type


FieldType.__deepcopy__ = _share  # pyright: ignore[reportAttributeAccessIssue]


def one_state_dict(module: nn.Module) -> None:
    """Gives a module with escnn convolutions the same `state_dict` in train and eval mode (escnn issue 1).

    escnn's convolutions and linear maps hold their expanded weights as persistent buffers in eval mode only. They are
    functions of the weights, so they are left out when saving, and ignored (and rebuilt, in eval mode) when loading.
    """

    def expanded(owner: nn.Module, prefix: str) -> Iterator[tuple[str, Tensor | None]]:
        for name, child in owner.named_modules(prefix=prefix.removesuffix(".")):
            if hasattr(child, "basisexpansion"):
                for buffer in ("filter", "matrix", "expanded_bias"):
                    yield f"{name}.{buffer}".removeprefix("."), child._buffers.get(buffer)

    def leave_out(owner: nn.Module, state: dict, prefix: str, _metadata: dict) -> None:
        for key, _ in expanded(owner, prefix):
            state.pop(key, None)

    def supply(owner: nn.Module, state: dict, prefix: str, *_: object) -> None:
        for key, value in expanded(owner, prefix):
            state.pop(key, None)
            if value is not None:
                state[key] = value

    def rebuild(owner: nn.Module, _incompatible: object) -> None:
        with torch.no_grad():
            for child in owner.modules():
                if hasattr(child, "basisexpansion") and not child.training:
                    child.train().eval()

    module.register_state_dict_post_hook(leave_out)
    module.register_load_state_dict_pre_hook(supply)
    module.register_load_state_dict_post_hook(rebuild)
