"""The user's cache folder, and atomic writes of files."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np


def cache_folder() -> Path:
    """Returns `$ESCNN_ATTN_CACHE`, or `escnn_attn` in the user's cache folder."""
    chosen = os.environ.get("ESCNN_ATTN_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "escnn_attn"


def cached_arrays(name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Loads named arrays from the cache, after making and storing them if the file does not exist.

    Args:
        name: of the file in the cache folder, without its suffix; it must encode everything that `make` depends on.
        make: called if the file does not exist.
    """
    path = cache_folder() / f"{name}.npz"
    if not path.exists():
        arrays = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: np.savez(temporary, **arrays))
    with np.load(path) as stored:
        return dict(stored)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes to a temporary file in the same folder by `write`, then renames it: no reader sees half a file."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
