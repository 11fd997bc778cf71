"""Fixed arrays that keep their precision."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class ExactBuffer(nn.Module):
    """A fixed array that stays exact under `.double()`: kept in float64, handed out in the module's dtype.

    It is no part of the `state_dict`.

    Args:
        array: the values, of any shape.

    Examples:
        >>> third = ExactBuffer(np.array(1 / 3)).float().double()
        >>> third.value.item() == 1 / 3
        True
    """

    value: Tensor

    def __init__(self, array: np.ndarray) -> None:
        super().__init__()
        self._exact = torch.tensor(np.asarray(array), dtype=torch.float64)
        self.register_buffer("value", self._exact.to(torch.get_default_dtype()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExactBuffer":
        super()._apply(fn, recurse)
        self.value = self._exact.to(self.value)
        return self
