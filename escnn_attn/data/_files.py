"""The user's cache folder, and files that are whole or not there."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np


def cache_folder() -> Path:
    """`$ESCNN_ATTN_CACHE`, or `escnn_attn` in the user's cache folder."""
    chosen = os.environ.get("ESCNN_ATTN_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "escnn_attn"


def cached_arrays(name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Named arrays from the cache, made and kept there if they are not in it yet.

    Args:
        name: of the file in the cache folder, without its ending; it must tell apart whatever `make` depends on.
        make: called if there is no such file.
    """
    path = cache_folder() / f"{name}.npz"
    if not path.exists():
        arrays = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, lambda aside: np.savez(aside, **arrays))
    with np.load(path) as stored:
        return dict(stored)


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file through `write` under another name in its folder, then renames it: it is whole or not there."""
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
