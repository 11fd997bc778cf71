"""Files that a run writes: its settings and its results."""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from escnn_attn.data._files import write_atomically


def settings_of(config: DictConfig) -> dict[str, Any]:
    """Collects the values that determine the results of a run, by dotted names."""
    settings = {"epochs": config.epochs, "seed": config.seed}
    for name in ("data", "model", "module"):
        settings |= _flat(name, OmegaConf.to_container(config[name], resolve=True))
    settings.pop("data.folder", None)  # the same images may be in another folder
    return settings


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {inner: leaf for key, below in value.items() for inner, leaf in _flat(f"{name}.{key}", below).items()}


def require_same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Raises a ValueError if the file exists and holds other settings."""
    before = json.loads(path.read_text()) if path.exists() else settings
    names = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    if names:
        changed = ", ".join(f"{name}={before.get(name)} there, {settings.get(name)} now" for name in names)
        raise ValueError(f"{path.parent} holds a run with other settings ({changed}): choose another folder, or remove it")


def finished_results(folder: Path, tested: bool) -> dict[str, Any] | None:
    """Loads the results of a finished run from its folder; None if it is not finished, or not tested but `tested` is required."""
    path = folder / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    return results if results.get("finished") and ("test" in results or not tested) else None


def save_results(path: Path, results: dict[str, Any]) -> None:
    """Writes results as JSON, and creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(results, indent=1)))
