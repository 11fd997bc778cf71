"""Networks with trained weights: a folder for each, with `model.safetensors` and `config.json`.

The shipped weights are in this package; `SteerableTransformer.from_pretrained` loads them, any other folder of the same form, and repositories
of the Hugging Face Hub with such files. A folder from elsewhere decides what is built: only public names of this library, modules of `escnn.nn` and `torch.nn`, and what
`trust=[…]` names. Its `config.json` holds the SHA-256 checksum of the weights, which guards against damage, not against their author.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from escnn_attn.files import write_atomically, write_json
from escnn_attn.pretrained.hub import download, is_repository


def available() -> list[str]:
    """Names of the shipped networks."""
    return sorted(entry.name for entry in files(__name__).iterdir() if (Path(str(entry)) / "config.json").is_file())


def resolve(
    name: str | Path, revision: str | None = None, cache_dir: str | Path | None = None, token: str | bool | None = None
) -> Path:
    """The folder of a shipped network, the folder named, or that of a repository `"user/name"` of the Hugging Face Hub.

    Args:
        name: looked for in this order.
        revision: branch, tag or commit of a repository.
        cache_dir: where repositories are kept.
        token: of a private repository.

    Raises:
        ImportError, OSError: if a repository cannot be fetched (see `from_pretrained`).
        ValueError: if there is no such repository, or a revision for what is none.
    """
    if str(name) not in available() and is_repository(name):
        return download(str(name), revision, cache_dir, token)
    if revision is not None:
        raise ValueError(f"revision is for repositories user/name of the Hugging Face Hub, got {revision!r} for {str(name)!r}")
    return Path(str(files(__name__))) / str(name) if str(name) in available() else Path(name)


def read_config(folder: Path) -> dict[str, Any]:
    """The model card of a network: configuration, data, protocol and results.

    Raises:
        ValueError: if the folder holds no network, or its `config.json` is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"expected one of {available()}, a folder with config.json and model.safetensors, or a repository user/name of the "
            f"Hugging Face Hub, got {str(folder)!r}"
        )
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"expected JSON in {path}, got {path.stat().st_size} bytes that are none: {error}") from None
    found = isinstance(config, dict) and isinstance(config.get("model"), dict)
    if not found:
        raise ValueError(f'expected a configuration of a network as "model" in {path}, got none')
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a network, by name.

    Raises:
        FileNotFoundError: if the folder has no `model.safetensors`.
        ValueError: if the file is damaged: no weights, others than `config.json` has the checksum of, or not finite.
    """
    path, expected = folder / "model.safetensors", read_config(folder).get("sha256")
    data = path.read_bytes()
    if expected is None:
        warnings.warn(f"{folder / 'config.json'} has no sha256: damage to {path.name} may go unnoticed", stacklevel=3)
    elif (found := hashlib.sha256(data).hexdigest()) != expected:
        raise ValueError(f"expected weights of SHA-256 {expected} in {path}, got {found}: the file is damaged or another one")
    try:
        weights = load(data)
    except SafetensorError as error:
        raise ValueError(f"expected weights in {path}, got {len(data)} bytes that are none: {error}") from None
    require_finite(weights, path)
    return weights


def require_finite(weights: dict[str, Tensor], path: Path) -> None:
    """Raises a ValueError for weights that are NaN or infinite, naming the first and the file they are from."""
    for name, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"expected finite weights in {path}, got NaN or infinity in {name}")


def write_network(folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Writes a folder that `from_pretrained` loads; `config` holds the network as `"model"`, and what else is to be told."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_atomically(folder / "model.safetensors", lambda aside: save_file(whole, aside))
    write_json(folder / "config.json", {**config, "sha256": checksum(folder / "model.safetensors")})


def checksum(path: Path) -> str:
    """The SHA-256 of a file, as `config.json` holds it for the weights."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
