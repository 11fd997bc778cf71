"""Plots trajectories and predicted final positions: python scripts/plot_nbody.py checkpoints.steerable=….ckpt checkpoints.plain=….ckpt

Options:
    checkpoints.<name>: checkpoint of an nbody experiment, and the name of its model in the legend.
    clouds: number of test clouds.
    picture: file to write.
"""

from dataclasses import dataclass, field
from pathlib import Path

from escnn_attn.analysis import plot_trajectories
from escnn_attn.data import NBody
from escnn_attn.training import CloudRegression, brief_errors, load_module, parse_options
from escnn_attn.training.regression import predict_final_positions


@dataclass
class Options:
    checkpoints: dict[str, str] = field(default_factory=dict)
    clouds: int = 3
    picture: Path = Path("docs/images/nbody.png")


def load(checkpoint: str) -> CloudRegression:
    module = load_module(checkpoint)
    if not isinstance(module, CloudRegression):
        raise SystemExit(f"expected a checkpoint of an nbody experiment, got one of {type(module).__name__}: {checkpoint}")
    return module


@brief_errors
def main() -> None:
    options, data = parse_options(Options, __doc__), NBody()
    if not options.checkpoints:
        raise SystemExit("expected checkpoints.<name>=….ckpt")
    clouds = data.clouds()["test"].part(0, options.clouds)
    predictions = {name: predict_final_positions(load(path), clouds) for name, path in options.checkpoints.items()}
    paths, _ = data.simulation.trajectories(clouds)
    plot_trajectories(paths, clouds.charges, predictions, options.picture)
    print(f"saved {options.picture}")


if __name__ == "__main__":
    main()
