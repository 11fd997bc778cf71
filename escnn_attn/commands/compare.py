"""Prints a table of finished runs and saves their figures: python scripts/compare.py folder=outputs/comparison names=*_50k

Means over seeds; of accuracies with paired differences, and figures.

Options:
    folder: of a sweep, with a folder per run that contains results.json.
    names: pattern of the names of runs; by default all.
    pictures: folder of the figures; by default `folder`.
"""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from omegaconf import MISSING

from escnn_attn.analysis import (
    as_markdown,
    compare_runs,
    means_as_markdown,
    plot_accuracy_by_angle,
    plot_sample_efficiency,
    read_runs,
)
from escnn_attn.training import brief_errors, parse_options


@dataclass
class Options:
    folder: Path = MISSING
    names: str = "*"
    pictures: Path | None = None


@brief_errors
def main() -> None:
    options = parse_options(Options, __doc__)
    runs = read_runs(options.folder)
    for name, error in runs.failures.items():
        print(f"left out {name}: {error}")
    results = [result for result in runs.results if result.get("finished") and fnmatch(result["name"], options.names)]
    if not results:
        raise ValueError(f"no finished runs named {options.names} in {options.folder}")
    accuracies = [result for result in results if result.get("metric", "accuracy") == "accuracy"]
    if len(accuracies) < len(results):
        print(means_as_markdown([result for result in results if result not in accuracies]))
    if not accuracies:
        return
    rows, pictures = compare_runs(accuracies), options.pictures or options.folder
    print(as_markdown(rows))
    most = max(result["samples"] for result in accuracies)
    first = {r["name"]: r for r in reversed(accuracies) if r["samples"] == most and "angles" in r}
    if first:
        plot_accuracy_by_angle(list(first.values()), pictures / "comparison_by_angle.png")
    if len({row["samples"] for row in rows}) > 1:
        plot_sample_efficiency(rows, pictures / "sample_efficiency.png")
