"""Files that are whole or not there."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
