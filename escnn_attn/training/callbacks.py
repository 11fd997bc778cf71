"""Callbacks: averaged weights, random draws that a resumed run repeats, and the end of a diverged training."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, WeightAveraging
from torch import Tensor

from escnn_attn.arguments import require_integer
from escnn_attn.training.module import metric_of


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, used by validation, checkpoints and the end of training.

    After n steps the decay is the minimum of `decay` and (1 + n)/(10 + n), as in TensorFlow's `ExponentialMovingAverage`: the
    average at the end of a short training does not contain its first steps, which would not match the batch norm statistics.

    Args:
        decay: largest decay per step, in [0, 1).

    Raises:
        ValueError: if `decay` is not in [0, 1), or the weights are in half precision.
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"expected a decay in [0, 1), got {decay}")

        def move(averages: list[Tensor], current: list[Tensor], count: Tensor) -> None:
            weight = 1 - ((1 + count) / (10 + count)).clamp(max=decay)
            steps = torch._foreach_sub(current, averages)
            torch._foreach_mul_(steps, weight.to(averages[0]))
            torch._foreach_add_(averages, steps)  # one call for all weights: a call for each would be slow on GPUs

        super().__init__(use_buffers=False, multi_avg_fn=move)
        self._swapped = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.precision in ("bf16-true", "16-true"):
            half = trainer.precision.removesuffix("-true")
            raise ValueError(
                f"expected precision 32-true, 64-true or {half}-mixed for averaged weights, got {trainer.precision}, in which "
                f"the small changes of an average are rounded away: take {half}-mixed, or no AveragedWeights"
            )
        self._device = trainer.strategy.root_device  # where Lightning moves the module, but later
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:  # Lightning converts the module alone, and later
            trainer.precision_plugin.convert_module(self._average_model)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning does so at the end of training, but not if the loaded checkpoint is of a finished training
        self._copy_average_to_current(pl_module)

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._swapped:  # interrupted during validation: the checkpoint written next must hold the weights in their places
            self._swap_models(pl_module)


class SeedSteps(Callback):
    """Seeds torch before each batch: a resumed run repeats the random draws, such as dropout, of an uninterrupted run.

    Args:
        seed: combined with the number of the batch and the rank of the process.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(hash((self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank)) % 2**63)


class RequireFiniteLoss(Callback):
    """Ends a training whose loss is not finite, and names the first step at which it is not.

    Args:
        every: steps from one look to the next where that waits for the device; on CPUs each step is looked at. All are before a
            validation and at the end of an epoch, so no checkpoint is written after a loss that is not finite.

    Raises:
        FloatingPointError: that names step and epoch.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = require_integer("every", every)
        self._losses: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._losses, self._steps = [], 1 if trainer.strategy.root_device.type == "cpu" else self.every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"].detach())
        if len(self._losses) >= self._steps:
            self._look(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        if not self._losses:
            return
        # of all processes, so that all end where one finds a loss that is not finite
        means = trainer.strategy.reduce(torch.stack(self._losses), reduce_op="mean")
        losses, self._losses = means.tolist(), []
        wrong = [index for index, loss in enumerate(losses) if not math.isfinite(loss)]
        if wrong:
            step, epoch = trainer.fit_loop.total_batch_idx - len(losses) + 1 + wrong[0], trainer.current_epoch
            raise FloatingPointError(
                f"expected a finite training loss, got {losses[wrong[0]]} at step {step}, in epoch {epoch}"
            )


class CudaGraph(Callback):
    """Records the kernels of the network's forward and backward pass at the first step, and replays them at all others.

    A steerable network starts thousands of small kernels, and a GPU waits for the processor that starts them. Training batches
    have one shape; what waits for the GPU within the network cannot be recorded, as `escnn.nn.IIDBatchNorm2d` does: take
    `SteerableBatchNorm`. Gradients cannot be accumulated, as each replay writes them in the same place.

    Raises:
        ValueError: if training is not on a CUDA device, or accumulates gradients.
    """

    def __init__(self) -> None:
        self._recorded = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.accumulate_grad_batches != 1:
            raise ValueError(f"expected accumulate_grad_batches=1 for CudaGraph, got {trainer.accumulate_grad_batches}")
        if stage == "fit" and trainer.strategy.root_device.type != "cuda":
            raise ValueError(f"expected a CUDA device for CudaGraph, got {trainer.strategy.root_device}: take trainer=gpu")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._recorded:
            return
        buffers = [(buffer, buffer.clone()) for buffer in pl_module.model.buffers()]
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(trainer.precision))
        with torch.autocast("cuda", half, enabled=half is not None, cache_enabled=False):
            images = (pl_module.inputs(batch).clone(),)
            torch.cuda.make_graphed_callables(pl_module.model, images, allow_unused_input=True)
        with torch.no_grad():
            for buffer, before in buffers:  # recording runs the network, which averages statistics
                buffer.copy_(before)
        self._recorded = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        vars(pl_module.model).pop("forward", None)
        self._recorded = False

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)


class EarlyStop(EarlyStopping):
    """Ends a training whose metric on validation no longer improves, by the `metric` and `mode` of the `SupervisedModule`.

    Args:
        patience: number of validations without a better metric.
        min_delta: smallest change that counts as better.
    """

    def __init__(self, patience: int = 5, min_delta: float = 0.0) -> None:
        super().__init__(monitor="", patience=patience, min_delta=min_delta)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._measure_by(*metric_of(pl_module))
        super().setup(trainer, pl_module, stage)

    def _measure_by(self, monitor: str, mode: str) -> None:
        self.monitor, self.mode = monitor, mode
        self.min_delta = abs(self.min_delta) if self.mode == "max" else -abs(self.min_delta)
        self.best_score = torch.tensor(-torch.inf if self.mode == "max" else torch.inf)
