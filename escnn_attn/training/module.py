"""Base class of the LightningModules: optimizer, schedule, metrics and steps of supervised training."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric
from typing_extensions import Self

from escnn_attn.arguments import require_number
from escnn_attn.compat import change_of_mode, tend_filters
from escnn_attn.data.base import DataModule
from escnn_attn.models.config import Trust, build, by_name, imported
from escnn_attn.training._checkpoint import read_checkpoint

#: a built network, or its configuration with a `_target_` that Hydra instantiates
Model = nn.Module | Mapping[str, Any]


class SupervisedModule(pl.LightningModule, ABC):
    """Base class of supervised training with AdamW and a one-cycle schedule: linear warm-up, then cosine decay to zero.

    A configuration of the network is stored in checkpoints, so that `load_module` needs the file alone. A built network is
    not: loading needs it again, as `model=`.

    Args:
        model: network, or its configuration: a mapping of plain values with a `_target_` that Hydra instantiates.
        learning_rate: peak learning rate.
        weight_decay: of weights; gains and biases are not decayed.
        warmup: fraction of the steps with rising learning rate.
        test_sets: names of the test sets, in the order of their loaders.

    Raises:
        ValueError: if a number is out of range.
    """

    #: name of the metric, logged as `stage/metric` for each stage and monitored on validation
    metric: str
    #: "max" if a higher metric is better, "min" if a lower is
    mode: str

    def __init__(
        self,
        model: Model,
        *,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        test_sets: Sequence[str] = ("test",),
    ) -> None:
        super().__init__()
        require_number("learning_rate", learning_rate, above=0)
        require_number("weight_decay", weight_decay)
        require_number("warmup", warmup, most=1)
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.test_sets = tuple(test_sets)
        self.save_hyperparameters(ignore="model")  # the arguments of the subclass too
        stored: dict[str, Any] = {"_target_": f"{type(self).__module__}.{type(self).__qualname__}"}
        if isinstance(model, nn.Module):
            self.model = model
        else:
            stored["model"] = OmegaConf.to_container(model, resolve=True) if isinstance(model, DictConfig) else dict(model)
            self.model: nn.Module = instantiate(stored["model"])
        self.save_hyperparameters(stored)
        self.metrics = nn.ModuleDict(
            {f"{s}/{self.metric}": self.new_metric() for s in ("train", "validation", *self.test_sets)}
        )
        tend_filters(self)  # of networks made of escnn's modules alone, too

    def train(self, mode: bool = True) -> Self:
        with change_of_mode(self):
            return super().train(mode)

    def setup(self, stage: str) -> None:
        """Stores what the data module says about its data as hyper-parameter `data`; later data must be described alike.

        Raises:
            ValueError: if the module was trained on data of other classes, or images that were prepared otherwise.
        """
        datamodule = getattr(self.trainer, "datamodule", None)
        description = datamodule.description() if isinstance(datamodule, DataModule) else {}
        if stage == "fit" and description:
            self.hparams["data"] = description
        for name, value in (self.hparams.get("data") or {}).items():
            if name in description and description[name] != value:
                raise ValueError(f"expected data with the {name} of the training, {value}, got {description[name]}")

    @abstractmethod
    def new_metric(self) -> Metric:
        """Makes the metric of one stage, updated with predictions and targets."""

    @abstractmethod
    def inputs(self, batch: Any) -> Any:
        """Returns the argument of `forward` for a batch, with or without targets.

        Raises:
            TypeError: if the batch is of another task.
        """

    @abstractmethod
    def targets(self, batch: Any) -> Tensor:
        """Returns the targets of a batch, one per row of the predictions."""

    @abstractmethod
    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Computes the training objective; it may be smoothed in training mode."""

    def on_predictions(self, stage: str, predictions: Tensor, targets: Tensor) -> None:
        """Called after every batch of a stage: `"train"`, `"validation"` or the name of a test set."""

    def test_results(self) -> dict[str, Any]:
        """Returns results of the last test beyond the metric, to be stored with it."""
        return {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.shared_step("train", batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.shared_step("validation", batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Returns the predictions, for callbacks."""
        if dataloader_idx >= len(self.test_sets):
            raise ValueError(
                f"expected a loader for each of test_sets={list(self.test_sets)}, got more: pass the names of all as test_sets"
            )
        return self._evaluated(self.test_sets[dataloader_idx], batch)[1]

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Returns the outputs of `forward` for a batch, with or without targets."""
        return self(self.inputs(batch))

    def shared_step(self, stage: str, batch: Any) -> Tensor:
        """Computes the loss of a batch, and logs it and the metric of the stage."""
        return self._evaluated(stage, batch)[0]

    def _evaluated(self, stage: str, batch: Any) -> tuple[Tensor, Tensor]:
        """Loss and predictions of a batch."""
        inputs, targets = self.inputs(batch), self.targets(batch)
        predictions = self(inputs)
        loss = self.loss(predictions, targets)
        name = f"{stage}/{self.metric}"
        self.metrics[name].update(predictions, targets)  # pyright: ignore[reportCallIssue] (a Metric)
        self.on_predictions(stage, predictions, targets)
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "add_dataloader_idx": False, "batch_size": len(targets)}
        self.log(f"{stage}/loss", loss, sync_dist=True, **options)
        self.log(name, self.metrics[name], prog_bar=True, **options)  # pyright: ignore[reportArgumentType]
        return loss, predictions

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # the weights of escnn's convolutions are vectors: coefficients of their kernel bases
        trained = [(p.dim() > 1 or name.endswith(".weights"), p) for name, p in self.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for decayed, p in trained if decayed]},
            {"params": [p for decayed, p in trained if not decayed], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=self.weight_decay)
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ValueError("expected epochs or max_steps, which the schedule depends on, got neither")
        schedule = partial(one_cycle, total=max(1, int(total)), warmup=self.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, *arguments: Any, trust: Trust = (), **changes: Any) -> Self:
        """As Lightning's, from weights and plain data alone; the network is built from names that `load_module` trusts."""
        stored = read_checkpoint(checkpoint_path)["hyper_parameters"]
        config = stored.get("model")
        if "model" not in {**stored, **changes}:
            raise ValueError(
                f"expected model=…: {checkpoint_path} was trained from a built network and stores no configuration of it"
            )
        network = changes.pop("model", None)
        network = build(config, trust) if network is None else network
        options = {**changes, "weights_only": True, "model": network}
        module = super().load_from_checkpoint(checkpoint_path, *arguments, **options)
        kept = {"model": config if isinstance(network, nn.Module) else None, "data": stored.get("data")}
        module.hparams.update({name: value for name, value in kept.items() if value is not None})  # for its own checkpoints
        return module


def metric_of(module: pl.LightningModule) -> tuple[str, str]:
    """Name of the metric on validation as it is logged, and its mode.

    Raises:
        TypeError: if the module is no `SupervisedModule`, which has them.
    """
    if not isinstance(module, SupervisedModule):
        raise TypeError(f"expected a SupervisedModule, which has a metric and mode, got {type(module).__name__}")
    return f"validation/{module.metric}", module.mode


def one_cycle(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate: linear warm-up over a fraction of the steps, then cosine decay to zero.

    Examples:
        >>> [round(one_cycle(step, 100, 0.1), 2) for step in (0, 9, 10, 55, 100)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    start = warmup * total
    if step < start:
        return min(1.0, (step + 1) / start)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - start) / max(1.0, total - start)))


def load_module(checkpoint: str | Path, *, trust: Trust = (), **changes: Any) -> SupervisedModule:
    """Loads the module of a checkpoint, of the class that was trained, in eval mode on the CPU.

    Args:
        checkpoint: file that training wrote.
        trust: names that the checkpoint may import and call beside the modules of `escnn_attn.training` and what
            `models.build` trusts, such as `["my_package.MyModule"]`, or the objects themselves.
        changes: arguments of the module that replace the stored ones, such as `test_sets`; `model` if it was a built network.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint of a `SupervisedModule`, has names that are not trusted, or needs `model`.
    """
    name, known = read_checkpoint(checkpoint)["hyper_parameters"].get("_target_"), {**_modules(), **by_name(trust)}
    if name not in known:
        raise ValueError(
            f"expected a checkpoint of a SupervisedModule, one of {[*known]}, got {name} in {checkpoint}: see trust"
        )
    module = imported(known[name])
    supervised = isinstance(module, type) and issubclass(module, SupervisedModule)
    if not supervised:
        raise ValueError(f"expected a checkpoint of a SupervisedModule, got {name} in {checkpoint}")
    return module.load_from_checkpoint(checkpoint, map_location="cpu", trust=trust, **changes).eval()


def _modules() -> dict[str, type[SupervisedModule]]:
    """The modules of this package, by the names that checkpoints hold."""
    public = vars(import_module("escnn_attn.training")).values()
    kinds = (kind for kind in public if isinstance(kind, type) and issubclass(kind, SupervisedModule))
    return {f"{kind.__module__}.{kind.__qualname__}": kind for kind in kinds}
