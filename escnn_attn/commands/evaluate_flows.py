"""Evaluates predictions of flows: python scripts/evaluate_flows.py checkpoints.steerable=….ckpt checkpoints.plain=….ckpt

Prints relative errors of one interval and of many on both test sets, and the equivariance error under turns and mirrorings;
writes flows.json, rollout_errors.png, energy_spectra.png and vorticity.gif.

Options:
    checkpoints.<name>: checkpoint in the folder of a run of experiment=flow, and the name of its model in table and figures.
    flow: index of the test flow of the animation.
    folder: of the files.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor

from escnn_attn.analysis import animate_vorticity, flow_errors, plot_energy_spectra, plot_rollout_errors, rollout, turning_error
from escnn_attn.analysis.flows import Prediction, prediction_of
from escnn_attn.data import Flow
from escnn_attn.files import write_json
from escnn_attn.models import build
from escnn_attn.training import FieldRegression, brief_errors, load_module, parse_options

#: what the configuration of the data of a run may call
DATA = [f"escnn_attn.data.{name}" for name in ("Flow", "AugmentedFlow", "TurbulenceConfig")]


@dataclass
class Options:
    checkpoints: dict[str, str] = field(default_factory=dict)
    flow: int = 0
    folder: Path = Path("outputs/flows")


@brief_errors
def main() -> None:
    options = parse_options(Options, __doc__)
    if not options.checkpoints:
        raise ValueError("expected checkpoints.<name>=….ckpt")
    runs = {name: load(Path(path)) for name, path in options.checkpoints.items()}
    data = next(iter(runs.values()))[1]
    if any(other.simulation != data.simulation for _, other in runs.values()):
        raise ValueError("expected checkpoints of runs with the same simulation of flows, got different ones")
    predictions: dict[str, Prediction] = {"no change": torch.clone}
    predictions |= {name: prediction_of(module, its) for name, (module, its) in runs.items()}
    sets = data.trajectories(*data.test_sets)
    errors: dict[str, dict[str, Any]] = {
        name: {s: flow_errors(predict, flows) for s, flows in sets.items()} for name, predict in predictions.items()
    }
    for name, predict in predictions.items():
        errors[name]["turning"] = turning_error(predict, sets["test"][:, 0])
    write_json(options.folder / "flows.json", errors)
    Console(width=110).print(table_of(errors))
    plot_rollout_errors(
        {name: found["test"]["rollout"] for name, found in errors.items()}, options.folder / "rollout_errors.png"
    )
    draw(sets["test"], {name: predictions[name] for name in runs}, options)


def load(checkpoint: Path) -> tuple[FieldRegression, Flow]:
    """The module of a checkpoint and the data module of its run."""
    module, config = load_module(checkpoint), checkpoint.parents[1] / "config.yaml"
    if not isinstance(module, FieldRegression) or not config.exists():
        raise ValueError(f"expected a checkpoint in the folder of a run of experiment=flow, got {checkpoint}")
    return module, build(OmegaConf.to_container(OmegaConf.load(config))["data"], trust=DATA)  # pyright: ignore


def table_of(errors: dict[str, dict[str, Any]]) -> Table:
    """A row per model: errors after one interval, and after the last of a rollout, on each test set, and the equivariance error."""
    sets = Flow.test_sets
    steps = len(next(iter(errors.values()))[sets[0]]["rollout"])
    table = Table(
        "model", *(f"{name}, {what}" for name in sets for what in ("1 interval", f"{steps} in sequence")), "under turns"
    )
    for model, found in errors.items():
        values = (value for name in sets for value in (found[name]["one_step"], found[name]["rollout"][-1]))
        table.add_row(model, *(f"{value:.4f}" for value in values), f"{found['turning']:.1e}")
    return table


def draw(flows: Tensor, predictions: dict[str, Prediction], options: Options) -> None:
    """Spectra of all flows, and the animation of one."""
    predicted = {name: rollout(predict, flows[:, 0], flows.shape[1] - 1).numpy() for name, predict in predictions.items()}
    plot_energy_spectra(flows.numpy(), predicted, options.folder / "energy_spectra.png")
    shown = {"simulation": flows.numpy(), **predicted}
    animate_vorticity({name: velocities[options.flow] for name, velocities in shown.items()}, options.folder / "vorticity.gif")
    print(f"saved figures in {options.folder}")
