"""Files that a run writes: its settings and its results."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from escnn_attn.files import read_json

#: keys of the trainer that determine the results
TRAINER = (
    "precision", "devices", "num_nodes", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "limit_train_batches",
    "overfit_batches",
)  # fmt: skip


def settings_of(config: DictConfig) -> dict[str, Any]:
    """Collects the values that determine the results of a run, by dotted names."""
    settings = {"epochs": config.epochs, "seed": config.seed}
    for name in ("data", "model", "module"):
        settings |= _flat(name, OmegaConf.to_container(config[name], resolve=True))
    settings |= {f"trainer.{key}": config.trainer[key] for key in TRAINER}
    callbacks = cast(dict[str, Any], OmegaConf.to_container(config.callbacks))
    settings |= _flat("callbacks.averaged_weights", callbacks.get("averaged_weights"))
    for key in ("data.folder", "data.num_workers"):  # the same images may be in another folder, and read by other processes
        settings.pop(key, None)
    return settings


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {inner: leaf for key, below in value.items() for inner, leaf in _flat(f"{name}.{key}", below).items()}


def require_same_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Checks that a folder holds no run, or one with these settings.

    Raises:
        ValueError: that names the settings that differ, or the file of settings if it is damaged or missing.
    """
    path = folder / "settings.json"
    if not path.exists():
        if any((folder / "checkpoints").glob("*.ckpt")):
            raise ValueError(f"expected settings.json beside the checkpoints of {folder}, got none: name one by ckpt_path=…")
        return
    before = read_json(path)
    names = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    if names:
        changed = ", ".join(f"{name}={before.get(name)} there, {settings.get(name)} now" for name in names)
        raise ValueError(f"{folder} holds a run with other settings ({changed}): choose another folder, or remove it")


def finished_results(folder: Path, tested: bool) -> dict[str, Any] | None:
    """Loads the results of a finished run from its folder; None if it is not finished, or not tested but `tested` is required.

    A diverged run is finished. Damaged results are named, and count as none.
    """
    path = folder / "results.json"
    try:
        results = read_json(path) if path.exists() else {}
    except ValueError:
        print(f"{path} is damaged; it is made again from the checkpoints")
        results = {}
    complete = "error" in results or "test" in results or not tested
    return results if results.get("finished") and complete else None
