"""What a multirun ends with: a table of its runs, and their accuracy by rotation angle."""

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from escnn_attn.training.plots import plot_accuracy_by_angle


class ComparisonReport(Callback):
    """A Hydra callback: prints the table, and saves `accuracy_by_angle.png` in the folder of the sweep."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        results = [json.loads(path.read_text()) for path in sorted(folder.glob("*/results.json"))]
        report([r for r in results if "test" in r], folder)


def report(results: list[dict[str, Any]], folder: Path) -> None:
    """Prints results as a table and plots their accuracy by angle.

    Args:
        results: as `escnn_attn.training.run.train` returns them.
        folder: of the picture.
    """
    if not results:
        return
    sets = list(dict.fromkeys(name for r in results for name in r["test"]))
    table = Table("model", "seed", "parameters", "minutes", *(f"{name} %" for name in sets))
    for r in results:
        accuracies = (f"{100 * r['test'][name]:.1f}" if name in r["test"] else "" for name in sets)
        table.add_row(r["name"], str(r["seed"]), f"{r['parameters']:,}", f"{r['minutes']:.1f}", *accuracies)
    Console(width=100).print(table)
    picture = folder / "accuracy_by_angle.png"
    plot_accuracy_by_angle(results, picture)
    print(f"accuracy by rotation angle: {picture}")
