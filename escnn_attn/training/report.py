"""What runs end with: a line or a table of their results, and pictures of them."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from escnn_attn.training.plots import plot_accuracy_by_angle

#: how values of each metric read: what follows the name of the test set, the unit, and the number
FORMATS: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "accuracy": ("%", " %", lambda value: f"{100 * value:.1f}"),
    "error": ("error", "", lambda value: f"{value:.4g}"),
}
#: pictures of the results that hold the key
PICTURES: dict[str, Callable[[list[dict[str, Any]], Path], None]] = {"accuracy_by_angle": plot_accuracy_by_angle}


class ComparisonReport(Callback):
    """A Hydra callback: prints the table of a multirun, and saves its pictures in the folder of the sweep."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        results = [json.loads(path.read_text()) for path in sorted(folder.glob("*/results.json"))]
        report(results, folder)


def report(results: list[dict[str, Any]], folder: Path) -> None:
    """Prints results as a table, with the overrides that tell them apart, and draws what pictures there are of them.

    Args:
        results: as `escnn_attn.training.run.train` returns them.
        folder: of the pictures.
    """
    if not results:
        return
    columns = list(dict.fromkeys((name, r["metric"]) for r in results for name in _values(r)))
    headings = (f"{name} {FORMATS[metric][0]}" for name, metric in columns)
    table = Table("model", "seed", "parameters", "minutes", *headings)
    shared = set.intersection(*(set(r["overrides"]) for r in results))
    for r in results:
        shown = {(name, r["metric"]): FORMATS[r["metric"]][2](value) for name, value in _values(r).items()}
        row = (shown.get(column, "") for column in columns)
        name = " ".join([r["name"], *(o for o in r["overrides"] if o not in shared)])
        table.add_row(name, str(r["seed"]), f"{r['parameters']:,}", f"{r['minutes']:.1f}", *row)
    Console(width=100).print(table)
    draw(results, folder)


def compare(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each model and number of training samples: mean and standard deviation over seeds.

    Args:
        results: of runs that were tested, as `escnn_attn.training.run.train` returns them.

    Returns:
        rows with `"name"`, `"samples"`, `"seeds"`, `"parameters"`, `"minutes"`, `"test"` (of the first test set) and `"deviation"`
        (None for one seed), in the order of the test metric, best accuracy first.
    """
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for result in results:
        if result.get("test"):
            groups.setdefault((result["name"], result["samples"]), []).append(result)
    rows = []
    for (name, samples), runs in groups.items():
        values = [next(iter(run["test"].values())) for run in runs]
        rows.append(
            {
                "name": name,
                "samples": samples,
                "seeds": len(runs),
                "parameters": runs[0]["parameters"],
                "minutes": statistics.mean(run["minutes"] for run in runs),
                "test": statistics.mean(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
            }
        )
    return sorted(rows, key=lambda row: (-row["samples"], -row["test"]))


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The rows of `compare` as a table.

    Example:
        >>> row = {"name": "plain", "samples": 1000, "seeds": 3, "parameters": 50834, "minutes": 4.02, "test": 0.9, "deviation": 0.01}
        >>> print(as_markdown([row]).splitlines()[-1])
        | plain | 1,000 | 50,834 | 90.00 ± 1.00 | 3 | 4.0 |
    """
    lines = ["| model | training images | parameters | test % | seeds | minutes |", "|---|---|---|---|---|---|"]
    for row in rows:
        spread = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.2f}"
        lines.append(
            f"| {row['name']} | {row['samples']:,} | {row['parameters']:,} | {100 * row['test']:.2f}{spread} | {row['seeds']} | "
            f"{row['minutes']:.1f} |"
        )
    return "\n".join(lines)


def _values(result: dict[str, Any]) -> dict[str, float]:
    """The metric of a result, on validation and on test sets if there was a test."""
    return {"validation": result["validation"], **result.get("test", {})}


def draw(results: list[dict[str, Any]], folder: Path) -> None:
    """Saves the pictures for which some results have the values, and says where."""
    for key, plot in PICTURES.items():
        chosen = [r for r in results if key in r]
        if chosen:
            plot(chosen, folder / f"{key}.png")
            print(f"{key.replace('_', ' ')}: {folder / f'{key}.png'}")


def describe(results: dict[str, Any]) -> str:
    """One line about a result.

    Example:
        >>> describe({"name": "plain", "parameters": 61724, "metric": "accuracy", "test": {"upright": 0.97, "rotated": 0.393}})
        'plain: 61,724 parameters, upright 97.0 %, rotated 39.3 %'
    """
    _, unit, form = FORMATS[results["metric"]]
    values = ", ".join(f"{name} {form(value)}{unit}" for name, value in results.get("test", {}).items())
    return f"{results['name']}: {results['parameters']:,} parameters, {values or 'not tested'}"
