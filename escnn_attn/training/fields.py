"""LightningModule of regression from fields on a grid to fields on the same grid."""

from collections.abc import Sequence

import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor
from torchmetrics import Metric

from escnn_attn.analysis.flows import relative_errors
from escnn_attn.training._losses import mean_squared_error
from escnn_attn.training.module import SupervisedModule


class RelativeError(Metric):
    r"""Mean over samples of $\lVert\hat y - y\rVert / \lVert y\rVert$, norms over all components and pixels of a sample.

    Examples:
        >>> error = RelativeError()
        >>> target = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        >>> round(error(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), target).item(), 3)
        0.25
    """

    higher_is_better, full_state_update = False, False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds samples, the first axis of both."""
        self.total += relative_errors(predictions, targets).sum()
        self.count += len(targets)

    def compute(self) -> Tensor:
        return self.total / self.count


class FieldRegression(SupervisedModule):
    """Regression of fields on a grid by the mean squared error; the metric is the relative error of a sample.

    Predictions are (b, c', height, width). The network is an equivariant module of input fields (b, c, height, width), or any module of plain
    tensors. Arguments as of `SupervisedModule`.

    Raises:
        ValueError: with the first batch, if the channels of network and data differ, or the network changes height or width.

    Examples:
        >>> module = FieldRegression(torch.nn.Conv2d(2, 2, 3, padding=1))
        >>> module(torch.randn(1, 2, 8, 8)).shape
        torch.Size([1, 2, 8, 8])
    """

    metric, mode = "error", "min"

    def new_metric(self) -> Metric:
        return RelativeError()

    def forward(self, fields: Tensor) -> Tensor:
        in_type = getattr(self.model, "in_type", None)
        if isinstance(in_type, FieldType) and fields.shape[1] != in_type.size:
            raise ValueError(f"expected a model of {fields.shape[1]} input channels, got one of {in_type.size}: {in_type}")
        out = self.model(GeometricTensor(fields, in_type) if isinstance(in_type, FieldType) else fields)
        return out.tensor if isinstance(out, GeometricTensor) else out

    def inputs(self, batch: Tensor | Sequence[Tensor]) -> Tensor:
        """Returns the input fields of a batch (inputs, targets), (inputs,) or inputs."""
        fields = batch if isinstance(batch, Tensor) else batch[0]
        if not isinstance(fields, Tensor) or fields.dim() != 4:
            raise TypeError(f"expected data of fields on a grid, such as data=flow, got a batch {type(batch).__name__}")
        return fields

    def targets(self, batch: Sequence[Tensor]) -> Tensor:
        if isinstance(batch, Tensor) or len(batch) != 2 or batch[1].dim() != 4:
            raise TypeError(f"expected a batch of fields and target fields, got a {type(batch).__name__} without such targets")
        return batch[1]

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return mean_squared_error(predictions, targets)
