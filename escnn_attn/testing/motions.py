"""What a module must commute with beside the group: translations and the order of points, and cyclic shifts of periodic grids."""

from collections.abc import Callable
from functools import partial

import torch
from escnn.nn import EquivariantModule
from torch import nn

from escnn_attn.testing.actions import Fields, reorder, roll, translate
from escnn_attn.testing.errors import field_error
from escnn_attn.testing.modules import call, copy_of
from escnn_attn.testing.settings import Setting
from escnn_attn.tokens.windows import stride_of, windows_of

#: of the points, when translations are tested
SHIFT = (5.3, -7.1)
#: rows and columns, in steps of the module, when cyclic shifts are tested
STEPS = ((1, 0), (0, 1), (-2, 3))

#: moves an input of an index, or an output, which has that of the first
Motion = Callable[[Fields, int], Fields]


def motion_errors(module: EquivariantModule, setting: Setting) -> dict[str, float]:
    """The relative errors of the motions of a setting, by what is wrong with a module that does not commute with one."""
    moves = _motions(module, setting)
    if not moves:
        return {}
    inputs, options = setting.inputs(module), setting.options(module)
    tested = copy_of(module, setting.dtype, setting.training)
    reference, errors = call(tested, inputs, **options), {}
    for fault, move in moves.items():
        moved = call(tested, [move(x, index) for index, x in enumerate(inputs)], **options)
        errors[fault] = field_error(moved, move(reference, 0))
    return errors


def _motions(module: nn.Module, setting: Setting) -> dict[str, Motion]:
    if setting.domain == "points":
        return {
            "is not equivariant to translations": _translated,
            "depends on the order of points": _reordered(module, setting),
        }
    if not setting.periodic:
        return {}
    stride = stride_of(windows_of(module))
    shifts = [(rows * stride, columns * stride) for rows, columns in STEPS]
    fault = "is not equivariant to cyclic shifts by {} rows and {} columns"
    return {fault.format(*shift): partial(_shifted, shift, setting.size) for shift in shifts}


def _translated(x: Fields, index: int) -> Fields:
    return translate(x, torch.tensor(SHIFT))


def _reordered(module: nn.Module, setting: Setting) -> Motion:
    orders = [torch.arange(len(x.tensor)).flip(0).roll(3) for x in setting.inputs(module)]
    return lambda x, index: reorder(x, orders[index])


def _shifted(shift: tuple[int, int], size: tuple[float, float], x: Fields, index: int) -> Fields:
    """A grid shifted by pixels of the input, of a given height and width; of a coarser grid by fewer."""
    if isinstance(x, torch.Tensor) or x.tensor.dim() != 4:
        return x
    rows, columns = (round(step * side / full) for step, side, full in zip(shift, x.tensor.shape[2:], size, strict=True))
    return roll(x, rows, columns)
