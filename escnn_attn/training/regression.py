"""The LightningModules that predict a vector at each point of a cloud."""

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric

from escnn_attn.data.nbody import PointBatch, point_batch, points
from escnn_attn.data.particles import Clouds
from escnn_attn.training.base import Learner


class CloudRegression(Learner):
    """Training by the mean squared error of a vector at each point, over both of its components.

    Args:
        model: configuration of the network, plain numbers and names with a `_target_` that Hydra instantiates: an
            equivariant module from the features of points to one vector each.
        learning_rate: the highest.
        weight_decay: of weights; gains and biases are not decayed.
        warmup: fraction of the steps.
        test_sets: names of the test sets, in the order of their loaders.
    """

    metric, mode = "error", "min"

    def __init__(
        self,
        model: dict[str, Any],
        *,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        test_sets: tuple[str, ...] = ("test",),
    ) -> None:
        super().__init__(locals())

    def new_metric(self) -> Metric:
        return MeanSquaredError()

    def features(self, clouds: PointBatch) -> Tensor:
        """What the network is told about each point (points, channels): charge and velocity."""
        return clouds.features

    def forward(self, clouds: PointBatch) -> Tensor:
        """Predicted vectors (points, 2).

        Raises:
            ValueError: if the network is made for other features.
        """
        features, in_type = self.features(clouds), cast(FieldType, self.model.in_type)
        if features.shape[1] != in_type.size:
            raise ValueError(f"expected a model of {features.shape[1]} input channels, got one of {in_type.size}: {in_type}")
        x = GeometricTensor(features, in_type, clouds.coords)
        return self.model(x, batch=clouds.batch, batch_size=clouds.clouds).tensor

    def compare(self, batch: PointBatch) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, PointBatch):
            raise TypeError(f"expected data of clouds, such as data=nbody, got a batch {type(batch).__name__}")
        return self(batch).contiguous(), batch.displacements

    def loss(self, prediction: Tensor, truth: Tensor) -> Tensor:
        return F.mse_loss(prediction, truth)


class AbsoluteCloudRegression(CloudRegression):
    """`CloudRegression` of a network that is also told where each point is: for networks without symmetry.

    Absolute coordinates follow charge and velocity as two more channels; for the trivial group all channels are scalars.
    """

    def features(self, clouds: PointBatch) -> Tensor:
        return torch.cat([clouds.features, clouds.coords], dim=1)


@torch.inference_mode()
def predicted_ends(regression: CloudRegression, clouds: Clouds) -> np.ndarray:
    """Where a module in eval mode says that the particles of clouds end, (clouds, particles, 2)."""
    dataset = points(clouds)
    displacements = regression(point_batch([dataset[i] for i in range(len(dataset))]))
    return clouds.positions + displacements.numpy().reshape(clouds.positions.shape)
