"""Networks with trained weights: a folder for each, with `model.safetensors` and `config.json`.

The shipped weights are in this package; `SteerableTransformer.from_pretrained` loads them, and any other folder of the same form.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any


def available() -> list[str]:
    """Names of the shipped networks."""
    return sorted(entry.name for entry in files(__name__).iterdir() if (Path(str(entry)) / "config.json").is_file())


def resolve(name: str | Path) -> Path:
    """The folder of a shipped network, or the folder named."""
    return Path(str(files(__name__))) / str(name) if str(name) in available() else Path(name)


def read_config(folder: Path) -> dict[str, Any]:
    """The model card of a network: configuration, data, protocol and results.

    Raises:
        ValueError: if the folder holds no network.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"expected one of {available()}, or a folder with config.json and model.safetensors, got {str(folder)!r}"
        )
    return json.loads(path.read_text())
