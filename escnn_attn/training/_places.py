"""Files that a command is to read, by places: files, folders or patterns."""

import glob
from collections.abc import Callable, Iterable
from pathlib import Path


def files_at(places: Iterable[str | Path], inside: Callable[[Path], Iterable[Path]], kind: str) -> dict[Path, Path]:
    """Files at some places, each with a path to name its result by: that below the folder which was named, or its name.

    Args:
        places: files, folders, or patterns such as `photos/*.jpg`.
        inside: the files of a folder that count, at any depth.
        kind: of the files, for errors, such as "image".

    Raises:
        FileNotFoundError: if there are none at a place.
    """
    found: dict[Path, Path] = {}
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            new = {file: file.relative_to(path) for file in inside(path)}
        else:
            matches = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))
            new = {file: Path(file.name) for file in matches if file.is_file()}
        if not new:
            raise FileNotFoundError(
                f"expected an {kind}, a folder of {kind}s or a pattern, got {str(place)!r}, where there are none"
            )
        found |= {file: name for file, name in new.items() if file not in found}
    return found
