"""Table and pictures of finished runs: python scripts/compare.py outputs/comparison [--names '*_50k'] [--pictures docs/images]."""

import argparse
import json
from fnmatch import fnmatch
from pathlib import Path

from escnn_attn.analysis.comparison import as_markdown, compare
from escnn_attn.analysis.plots import plot_accuracy_by_angle, plot_sample_efficiency


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with a folder for each run, and results.json in it")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures; by default that of the runs")
    parser.add_argument("--names", default="*", help="pattern of the names of models, such as '*_50k'; by default all")
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in sorted(options.folder.glob("*/results.json"))]
    results = [result for result in results if result.get("finished") and fnmatch(result["name"], options.names)]
    if not results:
        parser.error(f"no finished runs of {options.names} in {options.folder}")
    rows, pictures = compare(results), options.pictures or options.folder
    print(as_markdown(rows))
    most = max(result["samples"] for result in results)
    first = {r["name"]: r for r in reversed(results) if r["samples"] == most and "angles" in r}
    plot_accuracy_by_angle(list(first.values()), pictures / "comparison_by_angle.png")
    if len({row["samples"] for row in rows}) > 1:
        plot_sample_efficiency(rows, pictures / "sample_efficiency.png")


if __name__ == "__main__":
    main()
