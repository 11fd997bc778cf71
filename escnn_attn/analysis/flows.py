"""Predictions of flows over one interval and over many."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from escnn_attn.data.flow import Flow, turn

#: from velocities (b, 2, n, n) to those an interval later
Prediction = Callable[[Tensor], Tensor]


def relative_errors(predictions: Tensor, targets: Tensor) -> Tensor:
    r"""Relative error $\lVert\hat y - y\rVert / \lVert y\rVert$ of each sample, norms over all its components and pixels.

    Args:
        predictions: (b, …).
        targets: (b, …).

    Returns:
        errors (b,), float32.

    Examples:
        >>> relative_errors(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.0, 2.0]])).tolist()
        [1.333..., 0.5]
    """
    difference = (predictions - targets).flatten(1).float().norm(dim=1)
    return difference / targets.flatten(1).float().norm(dim=1)


@torch.no_grad()
def rollout(predict: Prediction, start: Tensor, num_steps: int, batch_size: int = 32) -> Tensor:
    """Predicts flows over many intervals, each prediction the input of the next.

    Args:
        predict: from velocities (b, 2, n, n) to those an interval later.
        start: velocities (flows, 2, n, n).
        num_steps: number of intervals.
        batch_size: flows per call.

    Returns:
        velocities (flows, num_steps + 1, 2, n, n), the start first.

    Examples:
        >>> rollout(lambda velocities: velocities / 2, torch.ones(3, 2, 1, 1), num_steps=2)[0, :, 0, 0, 0]
        tensor([1.0000, 0.5000, 0.2500])
    """
    frames = [start]
    for _ in range(num_steps):
        frames.append(torch.cat([predict(batch) for batch in frames[-1].split(batch_size)]))
    return torch.stack(frames, dim=1)


def prediction_of(network: Callable[[Tensor], Tensor], data: Flow) -> Prediction:
    """The prediction of velocities by a network in eval mode, which takes the input fields of a data module."""
    return lambda velocities: network(data.inputs(velocities))


def flow_errors(predict: Prediction, flows: Tensor) -> dict[str, Any]:
    """Measures the relative errors of predictions of flows.

    Args:
        predict: from velocities (b, 2, n, n) to those an interval later.
        flows: true velocities (flows, frames, 2, n, n).

    Returns:
        `"one_step"`, the mean error over all intervals of all flows, each predicted from the truth before, and `"rollout"`, the mean over flows
        of the errors after 1, 2, … intervals from the first frame on.
    """
    before, after = flows[:, :-1].flatten(0, 1), flows[:, 1:].flatten(0, 1)
    one_step = relative_errors(rollout(predict, before, 1)[:, 1], after).mean()
    predicted = rollout(predict, flows[:, 0], flows.shape[1] - 1)
    steps = [relative_errors(predicted[:, step], flows[:, step]).mean() for step in range(1, flows.shape[1])]
    return {"one_step": float(one_step), "rollout": [float(error) for error in steps]}


def turning_error(predict: Prediction, velocities: Tensor) -> float:
    """Mean relative difference of predictions of turned and mirrored flows from turned and mirrored predictions: the equivariance error.

    Args:
        predict: from velocities (b, 2, n, n) to those an interval later.
        velocities: (b, 2, n, n).

    Examples:
        >>> velocities = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
        >>> turning_error(lambda u: 3 * u, velocities)
        0.0
        >>> round(turning_error(lambda u: u.abs(), velocities), 3)  # wrong where the velocity points to the left or down
        1.143
    """
    reference = rollout(predict, velocities, 1)[:, 1]
    kinds = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)][1:]
    errors = [
        relative_errors(rollout(predict, turn(velocities, *kind), 1)[:, 1], turn(reference, *kind)).mean() for kind in kinds
    ]
    return float(torch.stack(errors).mean())
