"""Loaders in an order that a resumed run repeats: base class of the data modules."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.data.distributed import DistributedSampler


class DataModule(pl.LightningDataModule, ABC):
    """Base class: loaders over data sets that a subclass provides by `make_datasets`.

    Args:
        batch_size: training samples in a batch, on each device.
        seed: of the order of training samples, which depends on nothing else than the seed and the epoch.
        workers: processes that load data.
    """

    #: names of the test sets, in the order of their loaders
    test_sets: tuple[str, ...]
    #: makes a batch of a list of samples
    collate: Callable[[list], Any] = staticmethod(default_collate)

    def __init__(self, batch_size: int = 64, seed: int = 0, workers: int = 0) -> None:
        super().__init__()
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.datasets: dict[str, Dataset] = {}

    @abstractmethod
    def make_datasets(self) -> dict[str, Dataset]:
        """The data sets `"train"`, `"validation"` and each of `test_sets`."""

    def measure(self, learner: nn.Module) -> dict[str, Any]:
        """Results beyond the metric on the test sets, to be stored with them."""
        return {}

    def setup(self, stage: str | None = None) -> None:
        if not self.datasets:
            self.datasets = self.make_datasets()

    def train_dataloader(self) -> DataLoader:
        # seeded by epoch, also without several processes, so that a resumed run sees the batches of an unbroken one
        replicas, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = DistributedSampler(self.datasets["train"], replicas, rank, shuffle=True, seed=self.seed)
        # a last, smaller batch is left out, unless it is the only one
        drop_last = len(sampler) >= self.batch_size
        return self._loader("train", self.batch_size, sampler=sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader:
        return self._loader("validation", 256)

    def test_dataloader(self) -> list[DataLoader]:
        return [self._loader(name, 256) for name in self.test_sets]

    def _loader(self, name: str, batch_size: int, **options: Any) -> DataLoader:
        return DataLoader(self.datasets[name], batch_size, num_workers=self.workers, collate_fn=self.collate, **options)
