"""Predictions for image files, which are prepared as those of the training were."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from escnn_attn.arguments import require_integer
from escnn_attn.data._splits import image_files
from escnn_attn.data.preparation import ImagePreparation, read_image, whole_files
from escnn_attn.files import write_atomically
from escnn_attn.training._images import require_fitting
from escnn_attn.training._places import files_at
from escnn_attn.training.module import SupervisedModule


class ImagePredictor:
    """A trained module of images with what its checkpoint says about them: predictions for files of any size.

    Args:
        module: of images, from a checkpoint of a training on image files (see `load_module`); set to eval mode.
        batch_size: images per batch.

    Raises:
        ValueError: if the checkpoint is of a training on other data, which says nothing about how images were prepared.

    Examples:
        >>> from escnn_attn.training import ImageClassifier
        >>> module = ImageClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(75, 2)), num_classes=2)
        >>> prepared = {"image_size": 5, "channels": 3, "fit": "cover"}
        >>> module.hparams["data"] = {"class_names": ["cat", "dog"], "preparation": prepared}  # as a training on images does
        >>> predictor = ImagePredictor(module)
        >>> predictor.preparation.settings()["image_size"]
        [5, 5]
    """

    def __init__(self, module: SupervisedModule, batch_size: int = 64) -> None:
        data = module.hparams.get("data") or {}
        if "preparation" not in data:
            raise ValueError(
                "expected a checkpoint of a training on image files, such as data=images, got one that does not say how images were "
                f"prepared: {type(module).__name__}"
            )
        require_fitting(module.model, len(data["class_names"]), data)
        self.module, self.batch_size = module.eval(), require_integer("batch_size", batch_size)
        self.class_names: list[str] = data["class_names"]
        self.preparation = ImagePreparation(**data["preparation"])

    @torch.no_grad()
    def logits(self, paths: Iterable[Path]) -> Iterator[tuple[Path, tuple[int, int], Tensor]]:
        """Yields each file with the size (w, h) of its image, and its logits (classes,), or (classes, height, width) of pixels."""
        batch: list[tuple[Path, tuple[int, int], Tensor]] = []
        for path in paths:
            image = read_image(path)
            batch.append((path, image.size, self.preparation(image)))
            if len(batch) == self.batch_size:
                yield from self._predicted(batch)
                batch = []
        yield from self._predicted(batch)

    def _predicted(
        self, batch: Sequence[tuple[Path, tuple[int, int], Tensor]]
    ) -> Iterator[tuple[Path, tuple[int, int], Tensor]]:
        if batch:
            found = self.module(torch.stack([pixels for *_, pixels in batch]).to(self.module.device)).cpu()
            yield from ((path, size, logits) for (path, size, _), logits in zip(batch, found, strict=True))

    def write_classes(self, paths: Iterable[Path], target: Path) -> None:
        """Writes a CSV file with a line for each image: file, class, and the probability of each class."""

        def write(aside: Path) -> None:
            with aside.open("w", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(["file", "class", *(f"p({name})" for name in self.class_names)])
                for path, _, logits in self.logits(paths):
                    row = logits.double().softmax(dim=0)
                    table.writerow([path, self.class_names[int(row.argmax())], *(f"{value:.6f}" for value in row.tolist())])

        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, write)

    def masks(self, paths: Iterable[Path]) -> Iterator[tuple[Path, np.ndarray]]:
        """Yields each file with the classes (h, w) of the pixels of its image, 255 where the network did not see it."""
        for path, size, logits in self.logits(paths):
            yield path, self.preparation.restore(logits.argmax(dim=0).numpy().astype(np.uint8), size)


def find_images(places: Iterable[str | Path], skip_broken: bool = False) -> dict[Path, Path]:
    """Images at some places, each with a path to name its result by: that below the folder which was named, or its name.

    Args:
        places: files, folders, whose images at any depth count, or patterns such as `photos/*.jpg`.
        skip_broken: whether files that cannot be read are left out with a warning.

    Raises:
        FileNotFoundError: if there are no images at a place.
        ValueError: that names all files that cannot be read.

    Examples:
        >>> import tempfile
        >>> from escnn_attn.data import write_shapes
        >>> folder = tempfile.mkdtemp()
        >>> write_shapes(folder, train=5, test=0, side=16)
        >>> [str(name) for name in find_images([folder]).values()][:2]
        ['train/L/00000.png', 'train/crescent/00001.png']
    """
    found = files_at(places, image_files, "image")
    whole = whole_files(found, skip_broken)
    return {path: found[path] for path in whole}
