"""Data module of charged particles: charges, velocities and positions in, displacements out."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from escnn_attn.data.base import DataModule
from escnn_attn.data.particles import ParticleClouds, SimulationConfig, random_orthogonal

#: standard deviation of the shifts of the test set `"moved"`
SHIFT = 3.0


class PointBatch(NamedTuple):
    """Clouds concatenated along the points, as in PyTorch Geometric.

    Attributes:
        features: (points, c), of charged particles c = 3, charge and velocity: a scalar, then a vector.
        coords: (points, 2), positions as (x, y).
        batch: (points,) of int64, the index of the cloud of each point.
        batch_size: number of clouds.
        displacements: (points, c'), the targets, of charged particles displacements; None in a batch for prediction.
    """

    features: Tensor
    coords: Tensor
    batch: Tensor
    batch_size: int
    displacements: Tensor | None = None

    def transformed(self, matrices: Tensor) -> "PointBatch":
        """Applies an orthogonal matrix per cloud, of (batch_size, 2, 2), about the origin."""
        apply = partial(torch.einsum, "pij,pj->pi", matrices.to(self.coords)[self.batch])
        charges, velocities = self.features.split((1, 2), dim=1)
        displacements = None if self.displacements is None else apply(self.displacements)
        features = torch.cat([charges, apply(velocities)], dim=1)
        return PointBatch(features, apply(self.coords), self.batch, self.batch_size, displacements)


def point_batch(samples: list[tuple[Tensor, ...]]) -> PointBatch:
    """Makes a batch of clouds of any sizes, each given by features, coords and, for training and tests, displacements."""
    features, coords, *displacements = zip(*samples, strict=True)
    sizes = torch.tensor([len(points) for points in coords])
    batch = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    return PointBatch(torch.cat(features), torch.cat(coords), batch, len(sizes), *map(torch.cat, displacements))


class NBody(DataModule):
    """Charged particles in the plane: the task is to predict displacements from initial positions, velocities and charges.

    The two test sets hold the same clouds: `"test"` as drawn, `"moved"` after a random rotation or reflection and a random
    shift of each.

    Args:
        train_size: number of training clouds, the first of the simulation.
        simulation: configuration of the clouds; None for the default.
        batch_size: training clouds per batch and device.
        seed: of the order of training clouds.
        num_workers: number of processes that load data.

    Raises:
        ValueError: if the simulation has fewer than `train_size` training clouds.
    """

    test_sets = ("test", "moved")
    collate = staticmethod(point_batch)

    def __init__(
        self,
        train_size: int = 3000,
        simulation: SimulationConfig | None = None,
        batch_size: int = 50,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.simulation = simulation or SimulationConfig()
        if not 1 <= train_size <= self.simulation.num_train:
            raise ValueError(f"expected 1 to {self.simulation.num_train:,} training clouds, got {train_size}")
        self.train_size = train_size

    def prepare_data(self) -> None:
        self.simulation.clouds()

    def clouds(self) -> dict[str, ParticleClouds]:
        """Returns the clouds of `"train"`, `"validation"` and each of `test_sets`."""
        stored, count = self.simulation.clouds(), self.simulation.num_test
        rng = np.random.default_rng([self.simulation.seed, len(stored)])  # a stream that the simulation does not use
        moved = stored["test"].transformed(random_orthogonal(count, rng), SHIFT * rng.standard_normal((count, 2)))
        return {**stored, "train": stored["train"].part(0, self.train_size), "moved": moved}

    def make_datasets(self) -> dict[str, Dataset]:
        return {name: point_dataset(clouds) for name, clouds in self.clouds().items()}


def point_dataset(clouds: ParticleClouds) -> TensorDataset:
    """Converts clouds to a data set of features, coords and displacements in float32, one sample per cloud."""
    features = np.concatenate([clouds.charges[..., None], clouds.velocities], axis=-1)
    arrays = features, clouds.positions, clouds.displacements
    return TensorDataset(*(torch.from_numpy(array).float() for array in arrays))


class AugmentedNBody(NBody):
    """`NBody` with random rotations and reflections of the training clouds about the origin, drawn anew in each step.

    The draws depend on the seed, the step and the rank of the process alone: a resumed run repeats those of an
    uninterrupted run.
    """

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer is None or not self.trainer.training:
            return batch
        rng = np.random.default_rng([self.seed, self.trainer.global_step, self.trainer.global_rank])
        return batch.transformed(torch.from_numpy(random_orthogonal(batch.batch_size, rng)))
