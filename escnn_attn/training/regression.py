"""LightningModules of regression: a vector at each point of a cloud."""

from typing import cast

import numpy as np
import torch
from escnn.nn import FieldType, GeometricTensor
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric

from escnn_attn.data.nbody import PointBatch, point_batch, point_dataset
from escnn_attn.data.particles import ParticleClouds
from escnn_attn.training._losses import mean_squared_error
from escnn_attn.training.module import SupervisedModule


class CloudRegression(SupervisedModule):
    """Regression of a vector at each point by the mean squared error of its components; predictions are (points, 2).

    The network is an equivariant module from the features of points to a vector at each. Arguments as of `SupervisedModule`.
    """

    metric, mode = "error", "min"

    def new_metric(self) -> Metric:
        return MeanSquaredError()

    def features(self, clouds: PointBatch) -> Tensor:
        """Returns the input features (points, channels): charge and velocity."""
        return clouds.features

    def forward(self, clouds: PointBatch) -> Tensor:
        """Predicts vectors (points, 2).

        Raises:
            ValueError: if the input type of the network does not match the features.
        """
        features, in_type = self.features(clouds), cast(FieldType, self.model.in_type)
        if features.shape[1] != in_type.size:
            raise ValueError(f"expected a model of {features.shape[1]} input channels, got one of {in_type.size}: {in_type}")
        x = GeometricTensor(features, in_type, clouds.coords)
        return self.model(x, batch=clouds.batch, batch_size=clouds.batch_size).tensor.contiguous()

    def inputs(self, batch: PointBatch) -> PointBatch:
        if not isinstance(batch, PointBatch):
            raise TypeError(
                f"expected data of clouds, such as data=nbody, got a batch {type(batch).__name__}: data modules of clouds have "
                "collate = staticmethod(point_batch)"
            )
        return batch

    def targets(self, batch: PointBatch) -> Tensor:
        if batch.displacements is None:
            raise TypeError("expected a batch of clouds with displacements, got a batch for prediction")
        return batch.displacements

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return mean_squared_error(predictions, targets)


class AbsoluteCloudRegression(CloudRegression):
    """`CloudRegression` with absolute coordinates as two more input channels, for networks without symmetry.

    For the trivial group all channels are scalars.
    """

    def features(self, clouds: PointBatch) -> Tensor:
        return torch.cat([clouds.features, clouds.coords], dim=1)


@torch.no_grad()
def predict_final_positions(module: CloudRegression, clouds: ParticleClouds) -> np.ndarray:
    """Predicts the final positions (clouds, particles, 2) of clouds, by a module in eval mode."""
    dataset = point_dataset(clouds)
    displacements = module(point_batch([dataset[i] for i in range(len(dataset))]))
    return clouds.positions + displacements.numpy().reshape(clouds.positions.shape)
