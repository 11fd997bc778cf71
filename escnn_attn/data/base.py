"""Base class of the data modules: loaders whose order of samples a resumed run repeats."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.data.distributed import DistributedSampler

from escnn_attn.arguments import require_integer


class DataModule(pl.LightningDataModule, ABC):
    """Base class of data modules: loaders of the data sets that a subclass returns from `make_datasets`.

    Prediction uses the loaders of the test sets.

    Args:
        batch_size: training samples per batch and device.
        seed: of the order of training samples, which depends on the seed and the epoch alone.
        num_workers: number of processes that load data.

    Raises:
        ValueError: if a number is out of range, or, by `setup("fit")`, `batch_size` above the number of training samples of a device.
    """

    #: names of the test sets, in the order of their loaders
    test_sets: tuple[str, ...]
    #: samples per batch of validation and test
    evaluation_batch_size: int = 256
    #: makes a batch of a list of samples
    collate: Callable[[list], Any] = staticmethod(default_collate)

    def __init__(self, batch_size: int = 64, seed: int = 0, num_workers: int = 0) -> None:
        super().__init__()
        require_integer("batch_size", batch_size)
        require_integer("seed", seed, 0)
        require_integer("num_workers", num_workers, 0)
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.datasets: dict[str, Dataset] = {}

    @abstractmethod
    def make_datasets(self) -> dict[str, Dataset]:
        """Returns the data sets `"train"`, `"validation"` and each of `test_sets`."""

    def description(self) -> dict[str, Any]:
        """Returns plain values that predictions need, such as names of classes, to be stored in checkpoints; by default none."""
        return {}

    def setup(self, stage: str | None = None) -> None:
        if not self.datasets:
            self.datasets = self.make_datasets()
        if stage == "fit":  # in every process, before any makes a step: evaluation takes fewer samples too
            self._sampler()

    def train_dataloader(self) -> DataLoader:
        # the last batch is dropped, if it is incomplete
        return self._loader("train", self.batch_size, sampler=self._sampler(), drop_last=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader("validation", self.evaluation_batch_size)

    def test_dataloader(self) -> list[DataLoader]:
        return [self._loader(name, self.evaluation_batch_size) for name in self.test_sets]

    def predict_dataloader(self) -> list[DataLoader]:
        return self.test_dataloader()

    def _sampler(self) -> DistributedSampler:
        """Training samples of this process, seeded by epoch, also if it is alone: a resumed run sees the batches of an unbroken one."""
        replicas, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = DistributedSampler(self.datasets["train"], replicas, rank, shuffle=True, seed=self.seed)
        if (most := len(sampler)) < self.batch_size:
            samples = f"{most} training samples" + (f" of each of {replicas} processes" if replicas > 1 else "")
            raise ValueError(
                f"expected a batch_size of at most the {samples}, got {self.batch_size}: take data.batch_size={most}"
            )
        return sampler

    def _loader(self, name: str, batch_size: int, **options: Any) -> DataLoader:
        options |= {"num_workers": self.num_workers, "collate_fn": self.collate}
        return DataLoader(self.datasets[name], batch_size=batch_size, **options)
