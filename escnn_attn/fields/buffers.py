"""Fixed arrays that go where their module goes, and keep their precision."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from escnn_attn.modes import keepable


class ExactBuffer(nn.Module):
    """A fixed array: kept outside torch, and made anew wherever the module goes; `.double()` finds all its digits.

    It is no part of the `state_dict`, so modules made on the meta device have it as soon as they have weights.

    Args:
        array: the values, of any shape: integers are kept as they are, others get the dtype of the module.

    Examples:
        >>> third = ExactBuffer(1 / 3).float().double()
        >>> third.value.item() == 1 / 3
        True
    """

    value: Tensor

    def __init__(self, array: ArrayLike) -> None:
        super().__init__()
        self._exact = np.asarray(array)
        self.register_buffer("value", self._on(torch.get_default_device(), torch.get_default_dtype()), persistent=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._exact.shape

    def like(self, x: Tensor) -> Tensor:
        """The array on the device of a tensor, and of its dtype with all digits unless it is one of integers."""
        value = self.value
        wider = torch.promote_types(value.dtype, x.dtype) if value.is_floating_point() else value.dtype
        if value.device != x.device or value.dtype != wider:
            value = self._on(x.device, wider)
            if keepable():
                self.value = value
        return value.to(x.dtype) if value.is_floating_point() else value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExactBuffer":
        super()._apply(fn, recurse)
        self.value = self._on(self.value.device, self.value.dtype)
        return self

    def _on(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        integers = np.issubdtype(self._exact.dtype, np.integer)
        with torch.inference_mode(False):  # a later training step must be able to use it
            return torch.from_numpy(self._exact).to(device, torch.long if integers else dtype, copy=True)
