"""Files of a folder, and their seeded division into sets."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from escnn_attn.arguments import require_integer, require_share

#: of the files that count as images, in lower case
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def require_folder(folder: str | Path) -> Path:
    """A folder, where `~` is the user's; FileNotFoundError or NotADirectoryError for anything else."""
    path = Path(folder).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"expected a folder of images, got {str(path)!r}, which does not exist in {Path.cwd()}")
    if not path.is_dir():
        raise NotADirectoryError(f"expected a folder of images, got the file {str(path)!r}")
    return path


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, in the order of their names, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """Images in a folder or below, in the order of their paths, without hidden ones."""
    return sorted(_images(folder))


def has_images(folder: Path) -> bool:
    """Whether there is an image in a folder or below, without looking at all of them."""
    return next(_images(folder), None) is not None


def _images(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


@dataclass(frozen=True)
class Split:
    """Shares of the images for sets that have no folder of their own.

    Args:
        validation: share for validation.
        test: share for the test set.
        seed: of the division; it does not depend on the order of training.

    Raises:
        TypeError, ValueError: for shares that are not in [0, 1), or leave nothing for training.

    Examples:
        >>> files = [Path(f"cat/{number}.png") for number in range(10)]
        >>> sets = Split(validation=0.2, test=0.1).divide({"cat": files}, ["validation", "test"], Path())
        >>> {name: len(strata["cat"]) for name, strata in sets.items()}
        {'train': 7, 'validation': 2, 'test': 1}
    """

    validation: float = 0.15
    test: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        require_integer("split.seed", self.seed, 0)
        shares = [require_share(f"split.{name}", getattr(self, name)) for name in ("validation", "test")]
        if sum(shares) >= 1:
            raise ValueError(f"expected split.validation + split.test below 1, got {' + '.join(map(str, shares))}")

    def divide(
        self, strata: Mapping[str, Sequence[Path]], names: Sequence[str], root: Path
    ) -> dict[str, dict[str, list[Path]]]:
        """Divides each stratum, such as a class, into `"train"` and the sets named, with at least one file for each.

        The place of a file depends on the seed and its path below `root` alone: a file that is added moves few others.

        Raises:
            ValueError: that names a stratum with fewer files than sets.
        """
        sets: dict[str, dict[str, list[Path]]] = {name: {} for name in ("train", *names)}
        for stratum, files in strata.items():
            if len(files) < len(sets):
                raise ValueError(f"expected an image of {stratum} for each of {', '.join(sets)}, got {len(files)} in {root}")
            left = sorted(files, key=lambda path: self._draw(path.relative_to(root)))
            for name in names:
                count = max(1, min(round(getattr(self, name) * len(files)), len(left) - len(sets) + 1))
                sets[name][stratum], left = sorted(left[:count]), left[count:]
            sets["train"][stratum] = sorted(left)
        return sets

    def _draw(self, path: Path) -> bytes:
        return hashlib.sha256(f"{self.seed}/{path.as_posix()}".encode()).digest()
