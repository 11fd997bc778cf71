"""Data modules of images: upright digits that ship with the package, and rotated MNIST."""

from abc import abstractmethod
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from escnn_attn.data._files import cached_arrays
from escnn_attn.data.base import DataModule
from escnn_attn.data.mnist import load_mnist
from escnn_attn.files import write_atomically

Arrays = tuple[np.ndarray, np.ndarray]


def rotate_images(images: np.ndarray, degrees: np.ndarray, resolution: int = 1) -> np.ndarray:
    """Rotates each of the images (n, height, width) counter-clockwise about its center.

    Args:
        images: uint8, background 0.
        degrees: (n,) angles, one per image.
        resolution: 1 for bilinear interpolation between the pixels; more for a rotation at so many times their number along
            each side, with bicubic interpolation, and means of the finer pixels, at the angle 0 too.
    """
    turn = _turned if resolution == 1 else partial(_turned_finely, resolution=resolution)
    return np.stack([np.asarray(turn(Image.fromarray(i), float(d))) for i, d in zip(images, degrees, strict=True)])


def _turned(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BILINEAR)


def _turned_finely(image: Image.Image, degrees: float, resolution: int) -> Image.Image:
    width, height = image.size
    finer = image.resize((width * resolution, height * resolution), Image.Resampling.BICUBIC)
    return finer.rotate(degrees, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BOX)


def to_input(images: np.ndarray) -> Tensor:
    """Converts images (n, 28, 28) of uint8 to network input (n, 1, 29, 29) in [0, 1], resampled about their center.

    An odd side keeps the center on a pixel through strides of 2. Padding to an odd side would move the center by half a
    pixel: an image rotated about its own center would not be rotated about the center of the padded grid.
    """
    pixels = torch.from_numpy(images).float()[:, None] / 255
    return F.interpolate(pixels, size=(29, 29), mode="bicubic", align_corners=True).clamp(0, 1)


class ImageDataModule(DataModule):
    """Base class of data modules of labeled images, which a subclass returns from `arrays`; arguments as of `DataModule`."""

    @abstractmethod
    def arrays(self) -> dict[str, Arrays]:
        """Returns images (n, 28, 28) and labels (n,), both uint8, of `"train"`, `"validation"` and each of `test_sets`."""

    def make_datasets(self) -> dict[str, Dataset]:
        return {
            name: TensorDataset(to_input(images), torch.from_numpy(labels.astype(np.int64)))
            for name, (images, labels) in self.arrays().items()
        }

    def upright_test_images(self) -> Arrays | None:
        """Returns test images before rotation, and labels, to measure accuracy by rotation angle; by default None: no such images."""
        return None


class Digits(ImageDataModule):
    """Upright MNIST images that ship with the package: 3,000 for training, 500 for validation, 1,000 for test.

    The two test sets hold the same images, upright and randomly rotated. Arguments as of `DataModule`.
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

    def upright_test_images(self) -> Arrays:
        return self.arrays()["upright"]


class RotatedMNIST(ImageDataModule):
    """Rotated MNIST, regenerated: 10,000 images for training, 2,000 for validation, 50,000 for test.

    A seeded permutation of the 70,000 images of MNIST selects 12,000 for training and validation and 50,000 for test. Each is
    rotated by a uniformly random angle with bilinear interpolation, as described by Larochelle et al. (2007); the sets are
    comparable to the published sets, not identical.

    Args:
        folder: with the IDX files of MNIST; None for the cache, a download or npm (see `load_mnist`).
        train_size: number of training images, the first of the permutation; values above 10,000 include the validation images.
        batch_size: training images per batch and device.
        seed: of the order of training images.
        num_workers: number of processes that load data.

    Raises:
        ValueError: if `train_size` is not in 1 to 12,000.
    """

    test_sets = ("rotated",)
    PERMUTATION_SEED = 2007

    def __init__(
        self, folder: str | None = None, train_size: int = 10_000, batch_size: int = 64, seed: int = 0, num_workers: int = 0
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
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
        chosen = np.random.default_rng(self.PERMUTATION_SEED).permutation(len(labels))[12_000:62_000]
        return images[chosen], labels[chosen]

    def _stored(self) -> Arrays:
        """The 62,000 rotated images, made from `folder` if given, or loaded from the cache."""
        name = f"rotated_mnist-{self.PERMUTATION_SEED}"
        stored = cached_arrays(name, self._rotated) if self.folder is None else self._rotated()
        return stored["images"], stored["labels"]

    def _rotated(self) -> dict[str, np.ndarray]:
        images, labels = load_mnist(self.folder)
        rng = np.random.default_rng(self.PERMUTATION_SEED)
        chosen = rng.permutation(len(labels))[:62_000]
        return {"images": rotate_images(images[chosen], rng.uniform(0, 360, len(chosen))), "labels": labels[chosen]}


def make_digits(target: Path, folder: str | None = None) -> None:
    """Writes the images of `Digits`: a seeded choice of 3,500 of MNIST's training set and 1,000 of its test set."""
    images, labels = load_mnist(folder)
    rng = np.random.default_rng(0)
    train, test = rng.permutation(60_000)[:3500], 60_000 + rng.permutation(10_000)[:1000]
    arrays = {
        f"{name}_{kind}": values[chosen]
        for name, chosen in (("train", train), ("test", test))
        for kind, values in (("images", images), ("labels", labels))
    }
    write_atomically(target, lambda temporary: np.savez_compressed(temporary, **arrays))  # pyright: ignore[reportArgumentType] (its stub takes them for another argument)
