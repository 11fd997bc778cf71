"""Data modules of image files: folders of classes."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from escnn_attn.arguments import require_flag, require_integer, require_items
from escnn_attn.data._splits import Split, has_images, image_files, require_folder, subfolders
from escnn_attn.data.base import DataModule
from escnn_attn.data.preparation import ImagePreparation, read_image, whole_files

#: what people call the sets, and no class
NAMES_OF_SETS = ("train", "training", "val", "valid", "validation", "test", "testing")

Strata = dict[str, list[Path]]


class FileDataset(Dataset):
    """Samples of files, each read when it is asked for; it pickles, for processes that are spawned."""

    def __init__(self, samples: Sequence[Any], load: Callable[..., Any]) -> None:
        self.samples, self.load = samples, load

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.load(*self.samples[index])


class FileDataModule(DataModule):
    """Base class of data modules of image files, which are read when they are needed.

    A folder holds `train`, `validation` and the test sets as folders, or what would be in `train`. A seeded share of the training
    images makes a set that has no folder of its own.

    Args:
        folder: of the images.
        image_size: side of the input in pixels, or height and width; see `ImagePreparation`.
        channels: 1 for grey, 3 for RGB.
        fit: `"cover"` cuts off what is outside of the shape of the input, `"contain"` shows the whole image on black.
        split: arguments of `Split`: the shares `validation` and `test`, and a `seed`, of sets without a folder.
        test_sets: names of the test sets.
        skip_broken: whether files that cannot be read are left out with a warning; else they are an error that names all. None
            reads no file in advance: the first broken one ends the run when it is met.
        batch_size: training images per batch and device, and images per batch of validation and test.
        seed: of the order of training images.
        num_workers: number of processes that load data.

    Raises:
        TypeError, ValueError: for values that are not allowed, and, by `setup`, for a folder of another form.
        FileNotFoundError, NotADirectoryError: by `setup`, if there is no such folder.
    """

    #: names of the classes, in the order of their labels; known after `setup`
    class_names: list[str]

    def __init__(
        self,
        folder: str | Path,
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
        super().__init__(batch_size, seed, num_workers)
        self.folder, self.split, self.test_sets = folder, Split(**(split or {})), tuple(require_items("test_sets", test_sets))
        self.preparation = ImagePreparation(image_size, channels, fit)
        self.skip_broken = None if skip_broken is None else require_flag("skip_broken", skip_broken)
        self.evaluation_batch_size = batch_size

    @abstractmethod
    def strata(self, folder: Path) -> Strata:
        """Returns the images in the folder of a set, by what each set gets its share of."""

    @abstractmethod
    def dataset(self, strata: Strata) -> Dataset:
        """Returns the data set of some of the images."""

    def files(self, image: Path) -> list[Path]:
        """Returns the files of a sample, by default its image alone."""
        return [image]

    def description(self) -> dict[str, Any]:
        return {"class_names": self.class_names, "preparation": self.preparation.settings()}

    def make_datasets(self) -> dict[str, Dataset]:
        return {name: self.dataset(strata) for name, strata in self._sets().items()}

    def _sets(self) -> dict[str, Strata]:
        """The images of each set."""
        root, names = require_folder(self.folder), ("train", "validation", *self.test_sets)
        given = {name: root / name for name in names if (root / name).is_dir()}
        if given or any(path.name.lower() in NAMES_OF_SETS for path in subfolders(root)):
            self._require_known(root, names, given)
        training = given.pop("train", root)
        missing = [name for name in names[1:] if name not in given]
        if unknown := [name for name in missing if name not in ("validation", "test")]:
            raise ValueError(
                f"expected a folder for each of test_sets={list(self.test_sets)}, got no {', '.join(unknown)} in {root}"
            )
        found = {"train": self._whole(self.strata(training))}
        others = {name: self._whole(self.strata(folder)) for name, folder in given.items()}
        divided = self.split.divide(found["train"], missing, training)
        return {name: (divided | others)[name] for name in names}

    def _whole(self, strata: Strata) -> Strata:
        if self.skip_broken is None:
            return strata
        whole = set(
            whole_files([file for files in strata.values() for path in files for file in self.files(path)], self.skip_broken)
        )
        return {name: [path for path in files if whole.issuperset(self.files(path))] for name, files in strata.items()}

    def _require_known(self, root: Path, names: Sequence[str], given: Mapping[str, Path]) -> None:
        unknown = [path.name for path in subfolders(root) if path.name not in names]
        if "train" not in given or unknown:
            raise ValueError(
                f"expected train in {root}, with or without {', '.join(names[1:])} beside it, got "
                f"{', '.join([*given, *unknown])}: rename the folders, or name the test sets by test_sets=[…]"
            )


class ImageFolder(FileDataModule):
    """Images in a folder for each class, of any size, as RGB or grey images (c, height, width) in [0, 1] with labels.

    `folder/train/<class>/…` with `validation` and `test` beside `train`, or `folder/<class>/…`, of which each class gives its share
    to every set. Labels follow the names of the classes. Arguments as of `FileDataModule`, and:

    Args:
        num_classes: number of classes that is expected; None for any.

    Raises:
        ValueError: by `setup`, if there are other classes than `num_classes`, one alone, one without images, or classes of a test
            set that training does not have.

    Examples:
        >>> import tempfile
        >>> from escnn_attn.data import ImageFolder, write_shapes
        >>> folder = tempfile.mkdtemp()
        >>> write_shapes(folder, train=20, test=10, side=32)
        >>> data = ImageFolder(folder, image_size=33, batch_size=4)
        >>> data.setup()
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, data.class_names[:2]
        (torch.Size([4, 3, 33, 33]), ['L', 'crescent'])
    """

    def __init__(
        self,
        folder: str | Path,
        image_size: int | Iterable[int] = 64,
        channels: int = 3,
        fit: str = "cover",
        split: Mapping[str, Any] | None = None,
        test_sets: Sequence[str] = ("test",),
        skip_broken: bool | None = False,
        num_classes: int | None = None,
        batch_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(folder, image_size, channels, fit, split, test_sets, skip_broken, batch_size, seed, num_workers)
        self.num_classes = None if num_classes is None else require_integer("num_classes", num_classes, 2)

    def make_datasets(self) -> dict[str, Dataset]:
        self.class_names = class_names(self.folder)
        if self.num_classes not in (None, len(self.class_names)):
            raise ValueError(
                f"expected data.num_classes={self.num_classes} classes, got {len(self.class_names)} in {self.folder}: {self.class_names}"
            )
        return super().make_datasets()

    def strata(self, folder: Path) -> Strata:
        found = {path.name: image_files(path) for path in subfolders(folder)}
        if unknown := [name for name in found if name not in self.class_names]:
            raise ValueError(f"expected the classes {self.class_names} of training, got also {', '.join(unknown)} in {folder}")
        if not any(found.values()):
            raise ValueError(f"expected images in {folder}, got none")
        return found

    def dataset(self, strata: Strata) -> Dataset:
        labels = {name: label for label, name in enumerate(self.class_names)}
        samples = [(path, labels[name]) for name, files in strata.items() for path in files]
        return FileDataset(samples, partial(_labeled, self.preparation))


def _labeled(preparation: ImagePreparation, path: Path, label: int) -> tuple[Tensor, int]:
    return preparation(read_image(path)), label


def class_names(folder: str | Path) -> list[str]:
    """Names of the classes in a folder of images, in the order of their labels.

    Raises:
        FileNotFoundError, NotADirectoryError: if there is no such folder.
        ValueError: if there is one class alone or none, or one without images.
    """
    root = require_folder(folder)
    root = root / "train" if (root / "train").is_dir() else root
    classes = subfolders(root)
    if len(classes) < 2:
        direct = [path.name for path in image_files(root) if path.parent == root]
        found = f"the images {direct[0]}, … themselves" if direct else ", ".join(path.name for path in classes) or "nothing"
        raise ValueError(f"expected a folder of images for each of two classes or more in {root}, got {found}")
    if empty := [path.name for path in classes if not has_images(path)]:
        raise ValueError(f"expected images of each class in {root}, got none in {', '.join(empty)}")
    return [path.name for path in classes]
