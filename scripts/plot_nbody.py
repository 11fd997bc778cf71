"""Plots where trained models say that charged particles end: `python scripts/plot_nbody.py steerable=….ckpt plain=….ckpt`."""

import sys
from pathlib import Path

from escnn_attn.analysis.plots import plot_trajectories
from escnn_attn.training import NBody, load_learner
from escnn_attn.training.regression import CloudRegression, predicted_ends

PICTURE = Path("docs/images/nbody.png")
CLOUDS = 3


def load(checkpoint: str) -> CloudRegression:
    learner = load_learner(checkpoint)
    if not isinstance(learner, CloudRegression):
        raise SystemExit(f"expected a checkpoint of the nbody job, got one of {type(learner).__name__}: {checkpoint}")
    return learner


def main(named: list[str]) -> None:
    if not named or not all("=" in pair for pair in named):
        raise SystemExit(__doc__)
    data = NBody()
    clouds = data.clouds()["test"].part(0, CLOUDS)
    models = {name: load(checkpoint) for name, checkpoint in (pair.split("=", 1) for pair in named)}
    predictions = {name: predicted_ends(model, clouds) for name, model in models.items()}
    paths, _ = data.recipe.trajectories(clouds)
    plot_trajectories(paths, clouds.charges, predictions, PICTURE)
    print(f"saved {PICTURE}")


if __name__ == "__main__":
    main(sys.argv[1:])
