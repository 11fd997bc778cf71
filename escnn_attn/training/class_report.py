"""A callback that writes what a test tells about each class."""

from bisect import insort
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from escnn_attn.analysis.classes import class_table, plot_confusion, plot_examples, write_table
from escnn_attn.training._images import ImageModule

#: example images on a picture
EXAMPLES = 16


class ClassReport(Callback):
    """Writes a confusion matrix, a table by class and a picture of examples for each test set, of data with named classes.

    For a test set `test`: `test_confusion.csv` and `.png`, `test_classes.csv` with precision, recall, intersection over union and
    support, and `test_examples.png`, in which half are images that are classified wrongly if there are as many. Segmentations count
    pixels. Nothing is written for data that do not name their classes, such as digits, or if several processes share a test.

    Args:
        dirpath: folder of the files.
    """

    def __init__(self, dirpath: str | Path) -> None:
        self.folder = Path(dirpath)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.names: list[str] = (pl_module.hparams.get("data") or {}).get("class_names", [])
        self.active = bool(self.names) and isinstance(pl_module, ImageModule) and trainer.world_size == 1
        self.confusion: dict[str, MulticlassConfusionMatrix] = {}
        self.examples: dict[str, _Examples] = {}

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self.active:
            return
        assert isinstance(pl_module, ImageModule)
        name, found, truth = pl_module.test_sets[dataloader_idx], outputs.argmax(dim=1), pl_module.targets(batch)
        if name not in self.confusion:
            ignored = getattr(pl_module, "ignore_index", None)
            self.confusion[name] = MulticlassConfusionMatrix(len(self.names), ignore_index=ignored).to(pl_module.device)
            self.examples[name] = _Examples()
        self.confusion[name].update(found, truth)
        self.examples[name].add(pl_module.inputs(batch), truth, found)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, matrix in self.confusion.items():
            counts = matrix.compute().cpu().numpy()
            rows = class_table(counts, self.names)
            write_table(rows, self.folder / f"{name}_classes.csv")
            titled = [
                {"true class": true} | dict(zip(self.names, row.tolist(), strict=True))
                for true, row in zip(self.names, counts, strict=True)
            ]
            write_table(titled, self.folder / f"{name}_confusion.csv")
            plot_confusion(counts, self.names, self.folder / f"{name}_confusion.png")
            plot_examples(*self.examples[name].chosen(), self.names, self.folder / f"{name}_examples.png")
            _print(name, rows)
            print(f"confusion and examples: {self.folder / name}_confusion.png, {name}_examples.png")


class _Examples:
    """A seeded random choice of the images that are classified rightly, and of those that are not; of masks, of all images."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.right: list[tuple[float, list[np.ndarray]]] = []
        self.wrong: list[tuple[float, list[np.ndarray]]] = []

    def add(self, images: Tensor, truth: Tensor, found: Tensor) -> None:
        right = [True] * len(truth) if truth.dim() == 3 else (truth == found).tolist()
        for place, draw in enumerate(self.rng.random(len(truth)).tolist()):
            kept = self.right if right[place] else self.wrong
            if len(kept) < EXAMPLES or draw < kept[-1][0]:
                sample = [part[place].float().cpu().numpy() for part in (images, truth, found)]
                insort(kept, (draw, sample), key=itemgetter(0))
                del kept[EXAMPLES:]

    def chosen(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, true and predicted classes; half of the images are wrong if there are as many."""
        wrong = self.wrong[: max(EXAMPLES // 2, EXAMPLES - len(self.right))]
        samples = [sample for _, sample in [*self.right[: EXAMPLES - len(wrong)], *wrong]]
        images, truth, found = (np.stack(part) for part in zip(*samples, strict=True))
        return images, truth.astype(int), found.astype(int)


def _print(name: str, rows: list[dict[str, Any]], most: int = 30) -> None:
    """Prints the rows of the classes, the first if there are many."""
    table = Table(*rows[0], title=f"{name}: classes")
    for row in rows[:most]:
        table.add_row(
            *("" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values())
        )
    Console(width=100).print(table)
