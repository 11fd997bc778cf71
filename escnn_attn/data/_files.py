"""The user's cache folder, and files that are whole or not there."""

import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


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
        write_atomically(path, lambda temporary: np.savez(temporary, **arrays))
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


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: that names the file, if it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"expected JSON, got the damaged file {path}: {error}") from None


def write_json(path: Path, values: Any) -> None:
    """Writes values as JSON, and creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(values, indent=1)))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes to a file aside in the same folder by `write`, syncs it to the disk, then renames it: no reader sees half a file."""
    aside = path.with_name(f".{path.stem}.{os.getpid()}.aside{path.suffix}")
    try:
        write(aside)
        _sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes were writing in a folder or below, which no running process may be doing."""
    for path in folder.rglob(".*.aside*"):
        path.unlink(missing_ok=True)
