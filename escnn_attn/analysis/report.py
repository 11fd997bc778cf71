"""Reports of finished runs: a line or a table of results, and figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from escnn_attn.analysis.plots import plot_accuracy_by_angle
from escnn_attn.analysis.runs import read_runs

#: format of each metric: heading after the name of the test set, unit, and number
FORMATS: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "accuracy": ("%", " %", lambda value: f"{100 * value:.1f}"),
    "iou": ("IoU %", " %", lambda value: f"{100 * value:.1f}"),
    "error": ("error", "", lambda value: f"{value:.4g}"),
}


def _format(metric: str) -> tuple[str, str, Callable[[float], str]]:
    """Format of a metric; a metric without an entry in `FORMATS` is shown by its name."""
    return FORMATS.get(metric, (metric, "", "{:.4g}".format))


#: plots of the results that have the key
PLOTS: dict[str, Callable[[list[dict[str, Any]], Path], None]] = {"accuracy_by_angle": plot_accuracy_by_angle}


class ComparisonReport(Callback):
    """Hydra callback that prints the table of a multirun, and saves its figures in the folder of the sweep.

    Raises:
        SystemExit: at the end, if runs failed, with their names and errors.
    """

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        runs = read_runs(folder)
        report(runs.results, folder)
        best = folder / "optimization_results.yaml"  # of a sweeper that optimizes
        if best.exists():
            print(f"{best}:\n{best.read_text().rstrip()}")
        if runs.failures:
            failed = "".join(f"\n  {name}: {error}" for name, error in runs.failures.items())
            raise SystemExit(f"runs that failed:{failed}")


def report(results: list[dict[str, Any]], folder: Path) -> None:
    """Prints results as a table, with the overrides that differ, and saves their figures.

    Args:
        results: of runs, as `escnn_attn.training.train` returns them.
        folder: of the figures.
    """
    if not results:
        return
    columns = list(dict.fromkeys((name, r["metric"]) for r in results for name in _values(r)))
    headings = (f"{name} {_format(metric)[0]}" for name, metric in columns)
    table = Table("model", "seed", "parameters", "minutes", *headings)
    names = labels(results)
    for name, r in zip(names, results, strict=True):
        shown = {(name, r["metric"]): _format(r["metric"])[2](value) for name, value in _values(r).items()}
        row = (shown.get(column, "") for column in columns)
        table.add_row(name, str(r["seed"]), f"{r['parameters']:,}", f"{r['minutes']:.1f}", *row)
    Console(width=100).print(table)
    draw([r | {"name": name} for name, r in zip(names, results, strict=True)], folder)


def labels(results: list[dict[str, Any]]) -> list[str]:
    """Names of results with the overrides in which they differ.

    Examples:
        >>> labels([{"name": "plain", "overrides": ["seed=0", "epochs=2"]}, {"name": "plain", "overrides": ["seed=1", "epochs=2"]}])
        ['plain seed=0', 'plain seed=1']
    """
    shared = set.intersection(*(set(r["overrides"]) for r in results))
    differing = ([o for o in r["overrides"] if o not in shared and o.partition("=")[2] != r["name"]] for r in results)
    return [" ".join([r["name"], *overrides]) for r, overrides in zip(results, differing, strict=True)]


def _values(result: dict[str, Any]) -> dict[str, float]:
    """Values of the metric on validation and test sets."""
    validation = {"validation": result["validation"]} if "validation" in result else {}
    return {**validation, **result.get("test", {})}


def draw(results: list[dict[str, Any]], folder: Path) -> None:
    """Saves the figures of the values that results have, and prints their paths."""
    for key, plot in PLOTS.items():
        chosen = [r for r in results if key in r]
        if chosen:
            plot(chosen, folder / f"{key}.png")
            print(f"{key.replace('_', ' ')}: {folder / f'{key}.png'}")


def describe(results: dict[str, Any]) -> str:
    """Summarizes a result in one line.

    Examples:
        >>> describe({"name": "plain", "parameters": 61724, "metric": "accuracy", "test": {"upright": 0.97, "rotated": 0.393}})
        'plain: 61,724 parameters, upright 97.0 %, rotated 39.3 %'
    """
    if "error" in results:
        return f"{results['name']}: {results['parameters']:,} parameters, {results['error']}"
    _, unit, form = _format(results["metric"])
    values = results.get("test") or {name: value for name, value in _values(results).items() if name == "validation"}
    shown = ", ".join(f"{name} {form(value)}{unit}" for name, value in values.items())
    return f"{results['name']}: {results['parameters']:,} parameters, {shown or 'not tested'}"
