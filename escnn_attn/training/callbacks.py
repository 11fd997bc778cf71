"""Callbacks of the training system: averaged weights, the best checkpoint, and randomness that a resumed run repeats."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, WeightAveraging
from torch import Tensor, nn

from escnn_attn.training.base import Learner


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, which validation, checkpoints and the end of training use.

    After n steps the decay is (1 + n)/(10 + n), as in TensorFlow's `ExponentialMovingAverage`, and `decay` at most: a short
    training must not end with an average of its beginning, which the statistics of batch norm would not fit besides.

    Lightning's callback exchanges parameters and buffers by position, after the switch to eval mode. escnn's
    convolutions have other buffers in eval mode, made from the weights when the mode changes; so this one exchanges by
    name, in train mode, and switches modes around it.

    Args:
        decay: of the average, for each step; in [0, 1).

    Raises:
        ValueError: for another decay.
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")

        def moving_average(average: Tensor, current: Tensor, count: Tensor) -> Tensor:
            kept = ((1 + count) / (10 + count)).clamp(max=decay)
            return average.lerp(current, (1 - kept).to(average))

        super().__init__(use_buffers=False, avg_fn=moving_average)
        self._swapped = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl_module.train()  # a new escnn convolution holds its eval-mode buffers until the first switch of modes
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        # after a validation Lightning sets the flag of train mode alone, which leaves escnn's eval-mode buffers behind
        pl_module.train()
        super().on_train_batch_end(trainer, pl_module, *batch)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning has done so at the end of training, but not where a checkpoint of a finished training was loaded
        self._copy_average_to_current(pl_module)

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        with _train_mode(pl_module):
            for average, current in self._pairs(pl_module):
                kept = average.clone()
                average.copy_(current)
                current.copy_(kept)
        self._swapped = not self._swapped

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._swapped:  # interrupted during validation: a checkpoint that is written now must not mistake the two
            self._swap_models(pl_module)

    def _copy_average_to_current(self, pl_module: pl.LightningModule) -> None:
        with _train_mode(pl_module):
            for average, current in self._pairs(pl_module):
                current.copy_(average)

    def _pairs(self, pl_module: pl.LightningModule) -> list[tuple[Tensor, Tensor]]:
        assert self._average_model is not None
        averages = self._average_model.module.state_dict()
        return [(averages[name], value) for name, value in pl_module.state_dict().items()]


@contextmanager
def _train_mode(module: nn.Module) -> Iterator[None]:
    """No gradients, and a module in train mode inside; its own mode is entered anew afterwards."""
    training = module.training
    with torch.no_grad():
        module.train()
        yield
        module.train(training)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the epoch that is best on validation, by the metric and mode that the module states.

    Args:
        dirpath: folder of the checkpoint.
        filename: of the checkpoint, without its ending.
    """

    def __init__(self, dirpath: str, filename: str = "best") -> None:
        super().__init__(dirpath=dirpath, filename=filename)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, Learner):
            raise TypeError(f"expected a module that states its metric and mode, a Learner, got {type(pl_module).__name__}")
        self.monitor, self.mode = f"validation/{pl_module.metric}", pl_module.mode
        super().setup(trainer, pl_module, stage)


class SeedSteps(Callback):
    """Seeds torch before each step, so that a resumed run draws (dropout, say) what an unbroken one would.

    Args:
        seed: combined with the step and the rank of the process.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        torch.manual_seed(hash((self.seed, trainer.global_step, trainer.global_rank)) % 2**63)
