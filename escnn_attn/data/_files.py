"""The user's cache folder, and whether files are whole."""

import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from escnn_attn.files import write_atomically


def cache_folder() -> Path:
    """Returns `$ESCNN_ATTN_CACHE`, or `escnn_attn` in the user's cache folder."""
    chosen = os.environ.get("ESCNN_ATTN_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "escnn_attn"


def cached_arrays(name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Loads named arrays from the cache, after making and storing them if there is no such file, or a damaged one.

    Args:
        name: of the file in the cache folder, without its suffix; it must encode everything that `make` depends on.
        make: called if the file does not exist.
    """
    path = cache_folder() / f"{name}.npz"
    damaged = path.exists() and is_damaged(path)
    if damaged:
        warnings.warn(f"{path} is damaged, and made anew", stacklevel=2)
    if damaged or not path.exists():
        arrays = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: np.savez(temporary, **arrays))  # pyright: ignore[reportArgumentType] (its stub takes them for another argument)
    with np.load(path) as stored:
        return dict(stored)


def is_damaged(path: Path) -> bool:
    """Whether a checkpoint or file of arrays, both of which are ZIP archives, is not whole, by its checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, OSError, EOFError):
        return True


def require_whole_checkpoint(path: str | Path) -> None:
    """Checks that a checkpoint can be read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a checkpoint file, got {str(path)!r}")
    if is_damaged(Path(path)):
        raise ValueError(f"expected a checkpoint, got the damaged file {path}")
