"""Draws test accuracy against the time of training: python benchmarks/training_times.py picture=docs/images/accuracy_against_time.png

The systems of `docs/story.md` that have about 50,000 parameters. The time of a training is that of an epoch, as `benchmarks/epochs.py` measures it for all
systems in turn in one process, times the epochs of its records, in `docs/results`; accuracies are those of the records.

Options:
    threads: number of threads.
    rounds: number of timed steps of each network, after two for warm-up.
    picture: file of the figure.
    output: JSON file for the results and the machine.
"""

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the parent of the package benchmarks, for use as a script

from escnn_attn.analysis.plots import COLORS, save_figure
from escnn_attn.training import keep_freed_memory, parse_options

import torch
from matplotlib.figure import Figure
from omegaconf import MISSING

from benchmarks.epochs import RESULTS, Recipe, epochs
from benchmarks.measure import store


def recorded(system: str, folder: str = "comparison", name: str | None = None) -> Recipe:
    return Recipe((f"system={system}",), f"{folder}/{name or system}_10000_*")


SYSTEMS = {
    "steerable attention, SO(2)": recorded("steerable_so2_50k"),
    "steerable attention, stem of lifting attention": recorded("steerable_so2_lifted_50k"),
    "group attention C_8, stem of convolutions": recorded("group_attention_c8_convolved_50k"),
    "group attention, C_8": recorded("group_attention_c8_50k"),
    "group attention, C_4": recorded("group_attention_c4_50k"),
    "steerable convolutions, SO(2)": recorded("cnn_so2_50k"),
    "group convolutions, C_4": recorded("gcnn_c4_50k"),
    "plain attention, stem of convolutions": recorded("plain_stem_50k"),
    "plain attention": recorded("plain_50k"),
    "plain attention, 30 epochs": recorded("plain_50k", "equal_time"),
    "plain attention, 30 epochs, images turned at random": recorded("plain_50k", "equal_time", "plain_augmented_50k"),
}


@dataclass
class Options:
    threads: int = 1
    rounds: int = 9
    picture: Path = MISSING
    output: Path | None = None


def trainings(recipe: Recipe) -> list[dict[str, Any]]:
    """The records of a recipe, one for each seed."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{recipe.results}/results.json"))]


def rows_of(systems: dict[str, Recipe], rounds: int, batch: int = 64) -> dict[str, dict[str, Any]]:
    """Minutes of a training, and accuracies on test images in percent, of each system that has records."""
    records = {name: found for name, recipe in systems.items() if (found := trainings(recipe))}
    alike = {systems[name].overrides: systems[name] for name in records}  # the same network for more epochs is timed once
    seconds = epochs({" ".join(overrides): recipe for overrides, recipe in alike.items()}, rounds, batch=batch)
    return {
        name: {
            "minutes": seconds[" ".join(systems[name].overrides)]["seconds"] * runs[0]["epochs"] / 60,
            "test": [100 * run["test"]["rotated"] for run in runs],
        }
        for name, runs in records.items()
    }


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for index, (name, row) in enumerate(sorted(rows.items(), key=lambda item: -statistics.mean(item[1]["test"]))):
        marker, color = "osD^"[index // len(COLORS)], COLORS[index % len(COLORS)]
        values = row["test"]
        spread = statistics.stdev(values) if len(values) > 1 else 0
        axes.errorbar(
            row["minutes"], statistics.mean(values), spread, marker=marker, color=color, capsize=3, linestyle="", label=name
        )
    axes.set(xlabel="minutes of training on one core", ylabel="accuracy (%)", xlim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    save_figure(figure, path)


def main() -> None:
    options = parse_options(Options, __doc__)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    rows = rows_of(SYSTEMS, options.rounds)
    for name, row in rows.items():
        print(f"{name:56}{row['minutes']:8.1f} minutes{statistics.mean(row['test']):8.2f} % ({len(row['test'])})")
    draw(rows, options.picture)
    print(f"accuracy against time: {options.picture}")
    store(options.output, options, trainings=rows)


if __name__ == "__main__":
    main()
