"""Data module of images with a mask of classes for each."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from escnn_attn.arguments import require_integer, require_items
from escnn_attn.data._splits import image_files
from escnn_attn.data.images import FileDataModule, FileDataset, Strata
from escnn_attn.data.preparation import IGNORED, ImagePreparation, read_image, read_labels


class SegmentationFolder(FileDataModule):
    """Images (c, height, width) in [0, 1] and masks (height, width) of the class of each pixel, 255 where it does not count.

    `folder/train/images/…` and `folder/train/masks/…` with `validation` and `test` beside `train`, or `folder/images/…` and
    `folder/masks/…`, of which every set gets its share. The mask of an image has its name and the suffix `.png`, and is grey or has
    a palette: the values are indices of classes. Arguments as of `FileDataModule`, and:

    Args:
        num_classes: number of classes, the background included.
        class_names: their names; None for the numbers.

    Raises:
        ValueError: by `setup`, if there is no mask for an image or no image for a mask; when a sample is read, if its mask has another
            size than the image, or holds other numbers than those of the classes and 255.

    Examples:
        >>> import tempfile
        >>> from escnn_attn.data import SegmentationFolder, write_shapes
        >>> folder = tempfile.mkdtemp()
        >>> write_shapes(folder, train=20, test=10, side=32, per_image=2)
        >>> data = SegmentationFolder(folder, num_classes=6, image_size=33, batch_size=4)
        >>> data.setup()
        >>> images, masks = next(iter(data.train_dataloader()))
        >>> images.shape, masks.shape
        (torch.Size([4, 3, 33, 33]), torch.Size([4, 33, 33]))
    """

    def __init__(
        self,
        folder: str | Path,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        image_size: int | Iterable[int] = 64,
        channels: int = 3,
        fit: str = "cover",
        split: Mapping[str, Any] | None = None,
        test_sets: Sequence[str] = ("test",),
        skip_broken: bool | None = False,
        batch_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(folder, image_size, channels, fit, split, test_sets, skip_broken, batch_size, seed, num_workers)
        self.num_classes = require_integer("num_classes", num_classes, 2, IGNORED)
        names = range(self.num_classes) if class_names is None else require_items("class_names", class_names, self.num_classes)
        self.class_names, self.masks = [str(name) for name in names], dict[Path, Path]()

    def strata(self, folder: Path) -> Strata:
        images = {path: path.relative_to(folder / "images").with_suffix("") for path in image_files(folder / "images")}
        masks = {path.relative_to(folder / "masks").with_suffix(""): path for path in image_files(folder / "masks")}
        if not images:
            raise ValueError(f"expected images in {folder / 'images'}, and their masks in {folder / 'masks'}, got none")
        alone = [str(path) for path, name in images.items() if name not in masks]
        alone += [str(path) for name, path in masks.items() if name not in images.values()]
        if len(set(images.values())) < len(images) or any(path.suffix.lower() != ".png" for path in masks.values()):
            raise ValueError(f"expected images of different names in {folder / 'images'}, and PNG files in {folder / 'masks'}")
        if alone:
            shown = ", ".join(alone[:10]) + (f" and {len(alone) - 10} more" if len(alone) > 10 else "")
            raise ValueError(f"expected a mask of the same name for each image, and an image for each mask, got alone {shown}")
        self.masks |= {path: masks[name] for path, name in images.items()}
        return {"any class": [*images]}

    def files(self, image: Path) -> list[Path]:
        return [image, self.masks[image]]

    def make_datasets(self) -> dict[str, Dataset]:
        sets = super().make_datasets()
        training = sets["train"]
        if self.skip_broken is not None and isinstance(training, FileDataset):
            self._require_classes([mask for _, mask in training.samples])
        return sets

    def _require_classes(self, masks: list[Path]) -> None:
        """A ValueError if the training masks hold one class alone, and a warning for one that they lack: none can be learned."""
        seen: set[int] = set()
        for path in masks:
            seen |= set(np.unique(read_labels(path)).tolist())
            if len(seen - {IGNORED}) >= self.num_classes:
                return
        missing = [name for label, name in enumerate(self.class_names) if label not in seen]
        found = f"no pixel of class {', '.join(missing)} in the masks of {self.folder}, but the values {sorted(seen)}"
        if len(seen - {IGNORED}) < 2:
            raise ValueError(
                f"expected the indices of two classes or more in training masks, where {IGNORED} does not count, got {found}"
            )
        warnings.warn(f"{found}: it cannot be learned", stacklevel=2)

    def dataset(self, strata: Strata) -> Dataset:
        samples = [(path, self.masks[path]) for files in strata.values() for path in files]
        return FileDataset(samples, partial(_masked, self.preparation, self.num_classes))


def _masked(preparation: ImagePreparation, num_classes: int, path: Path, mask: Path) -> tuple[Tensor, Tensor]:
    image, labels = read_image(path), read_labels(mask)
    height, width = labels.shape
    if image.size != (width, height):
        raise ValueError(f"expected a mask of {image.width} × {image.height} pixels as {path}, got {width} × {height}: {mask}")
    largest = labels[labels != IGNORED].max(initial=0)
    if largest >= num_classes:
        raise ValueError(
            f"expected classes from 0 to {num_classes - 1} for data.num_classes={num_classes}, and {IGNORED} for pixels that do not "
            f"count, got {largest}: {mask}"
        )
    return preparation(image), torch.from_numpy(preparation.mask(labels))
