"""Networks with trained weights: a folder for each, with `model.safetensors` and `config.json`.

The weights that ship are in this package; any other folder of the same form does as well.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import nn


def available() -> list[str]:
    """Names of the networks that ship."""
    return sorted(entry.name for entry in files(__name__).iterdir() if (Path(str(entry)) / "config.json").is_file())


def load_pretrained(name: str | Path) -> nn.Module:
    """A trained network, in eval mode. Needs the extra `train`.

    Args:
        name: one of `available()`, or a folder that `scripts/publish.py` wrote.

    Raises:
        ValueError: if there is no such network.
    """
    from hydra.utils import instantiate
    from safetensors.torch import load_file

    folder = resolve(name)
    network = instantiate(card(folder)["model"])
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network.eval()


def resolve(name: str | Path) -> Path:
    """The folder of a network that ships, or the folder named."""
    return Path(str(files(__name__))) / str(name) if str(name) in available() else Path(name)


def card(folder: Path) -> dict[str, Any]:
    """What is told of a network: its configuration, data, protocol and results.

    Raises:
        ValueError: if the folder holds no network.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"expected one of {available()}, or a folder with config.json and model.safetensors, got {str(folder)!r}"
        )
    return json.loads(path.read_text())
