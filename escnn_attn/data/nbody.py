"""The data module of the charged-particles job: from charges, velocities and positions to displacements."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from escnn_attn.data.base import DataModule
from escnn_attn.data.particles import Clouds, Recipe, random_turns

#: standard deviation of the coordinates by which the clouds of the moved test set are shifted
SHIFT = 3.0


class PointBatch(NamedTuple):
    """Flattened clouds, as in PyTorch Geometric.

    Attributes:
        features: (points, 3), charge and velocity: a scalar, then a vector.
        coords: (points, 2), positions as (x, y).
        batch: (points,) of int64, the index of each point's cloud.
        clouds: number of clouds.
        displacements: (points, 2), what is to be predicted.
    """

    features: Tensor
    coords: Tensor
    batch: Tensor
    clouds: int
    displacements: Tensor

    def turned(self, turns: Tensor) -> "PointBatch":
        """These clouds, each turned about the origin by its orthogonal matrix, one of (clouds, 2, 2)."""
        charges, velocities = self.features.split((1, 2), dim=1)
        each = turns.to(self.coords)[self.batch]
        v, x, d = (torch.einsum("pij,pj->pi", each, part) for part in (velocities, self.coords, self.displacements))
        return self._replace(features=torch.cat([charges, v], dim=1), coords=x, displacements=d)


def point_batch(samples: list[tuple[Tensor, ...]]) -> PointBatch:
    """A batch of clouds of any sizes, each given as features, coords and displacements of its points."""
    features, coords, displacements = zip(*samples, strict=True)
    sizes = torch.tensor([len(points) for points in coords])
    batch = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    return PointBatch(torch.cat(features), torch.cat(coords), batch, len(sizes), torch.cat(displacements))


class NBody(DataModule):
    """Charged particles in the plane: predict how far each gets from where, how fast and with which charge it starts.

    There are two test sets of the same clouds: as drawn, and each turned by its own random rotation or reflection and
    shifted by its own random vector.

    Args:
        train_size: training clouds, the first of the recipe's.
        recipe: of the clouds; None for the default.
        batch_size: clouds in a batch, on each device.
        seed: of the order of training clouds.
        workers: processes that load data.

    Raises:
        ValueError: if the recipe has fewer training clouds than asked.
    """

    test_sets = ("test", "moved")
    collate = staticmethod(point_batch)

    def __init__(
        self, train_size: int = 3000, recipe: Recipe | None = None, batch_size: int = 50, seed: int = 0, workers: int = 0
    ) -> None:
        super().__init__(batch_size, seed, workers)
        self.recipe = recipe or Recipe()
        if not 1 <= train_size <= self.recipe.train:
            raise ValueError(f"expected 1 to {self.recipe.train:,} training clouds, got {train_size}")
        self.train_size = train_size

    def prepare_data(self) -> None:
        self.recipe.clouds()

    def clouds(self) -> dict[str, Clouds]:
        """The clouds of `"train"`, `"validation"` and each of `test_sets`."""
        stored = self.recipe.clouds()
        train = stored["train"].part(0, self.train_size)
        rng = np.random.default_rng([self.recipe.seed, len(stored)])  # a stream that the recipe does not use
        turns = random_turns(self.recipe.test, rng)
        moved = stored["test"].moved(turns, SHIFT * rng.standard_normal((self.recipe.test, 2)))
        return {**stored, "train": train, "moved": moved}

    def make_datasets(self) -> dict[str, Dataset]:
        return {name: points(clouds) for name, clouds in self.clouds().items()}


def points(clouds: Clouds) -> TensorDataset:
    """Clouds as a data set of features, coords and displacements in float32, one cloud a sample."""
    features = np.concatenate([clouds.charges[..., None], clouds.velocities], axis=-1)
    arrays = features, clouds.positions, clouds.displacements
    return TensorDataset(*(torch.from_numpy(array).float() for array in arrays))


class AugmentedNBody(NBody):
    """`NBody` whose training clouds are turned by random rotations and reflections about the origin, anew in each step.

    They depend on the seed, the step and the rank of the process alone, so that a resumed run sees those of an unbroken one.
    """

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer is None or not self.trainer.training:
            return batch
        rng = np.random.default_rng([self.seed, self.trainer.global_step, self.trainer.global_rank])
        return batch.turned(torch.from_numpy(random_turns(batch.clouds, rng)))
