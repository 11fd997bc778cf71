"""Comparison of finished runs: means over seeds, and standard errors of differences between models."""

import base64
import statistics
from typing import Any

import numpy as np

HEADINGS = (
    "| model | training images | parameters | test % | behind the first | seeds | minutes | quarter turns | other angles |"
)


def pack(correct: np.ndarray) -> str:
    """Encodes bits (n,), such as correctly classified images, as text."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    """Decodes the bits that `pack` encoded, padded with zeros to a multiple of eight.

    Examples:
        >>> unpack(pack(np.array([1, 0, 1])))
        array([1, 0, 1, 0, 0, 0, 0, 0], dtype=uint8)
    """
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))


def compare_runs(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Makes a row per model and number of training samples, sorted by decreasing number of samples, then accuracy.

    Args:
        results: of runs, as `escnn_attn.training.train` returns them; runs without tests are left out.

    Returns:
        rows with `"name"`, `"samples"`, `"seeds"`, `"parameters"`; means over seeds `"minutes"`, `"test"` (accuracy on the first
        test set), `"quarter_turns"` (largest relative change of the logits) and `"other_angles"` (mean relative change,
        including that from interpolated pixels); `"deviation"` of the accuracy, with several seeds; and, with stored hits,
        `"behind"`, the difference in accuracy to the first row with equally many samples, and `"behind_error"`, its standard
        error over paired test images, with hits averaged over seeds.
    """
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for result in results:
        if result.get("test"):
            groups.setdefault((result["name"], result["samples"]), []).append(result)
    rows = [_row(runs) for runs in groups.values()]
    rows.sort(key=lambda row: (-row["samples"], -row["test"]))
    hits = {key: _hits(runs) for key, runs in groups.items()}
    first = {}
    for row in rows:
        best = first.setdefault(row["samples"], row)
        ours, theirs = hits[row["name"], row["samples"]], hits[best["name"], best["samples"]]
        if row is not best and ours is not None and theirs is not None:
            row["behind"] = best["test"] - row["test"]
            row["behind_error"] = float((theirs - ours).std() / len(ours) ** 0.5)
    return rows


def _row(runs: list[dict[str, Any]]) -> dict[str, Any]:
    values = [_first_test(run) for run in runs]
    quarters, others = (
        None if None in changes else statistics.mean(changes) for changes in zip(*map(_changes, runs), strict=True)
    )
    return {
        "name": runs[0]["name"],
        "samples": runs[0]["samples"],
        "seeds": len(runs),
        "parameters": runs[0]["parameters"],
        "minutes": statistics.mean(run["minutes"] for run in runs),
        "test": statistics.mean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "quarter_turns": quarters,
        "other_angles": others,
    }


def _first_test(run: dict[str, Any]) -> float:
    return next(iter(run["test"].values()))


def _changes(run: dict[str, Any]) -> tuple[float, float] | tuple[None, None]:
    """Largest change of the logits at quarter turns, and mean change at other angles; None if not measured."""
    if "angles" not in run:
        return None, None
    changes = dict(zip(run["angles"], run["change_by_angle"], strict=True))
    return (
        max(change for angle, change in changes.items() if angle % 90 == 0),
        statistics.mean(change for angle, change in changes.items() if angle % 90),
    )


def _hits(runs: list[dict[str, Any]]) -> np.ndarray | None:
    """Mean over runs of the hits on each test image; None if a run did not store them."""
    if not all("correct" in run for run in runs):
        return None
    return np.mean([unpack(next(iter(run["correct"].values()))) for run in runs], axis=0)


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Formats the rows of `compare_runs` as a Markdown table.

    Examples:
        >>> row = {"name": "plain", "samples": 1000, "parameters": 50834, "test": 0.9, "deviation": 0.01, "seeds": 3, "minutes": 4.02}
        >>> print(as_markdown([row | {"quarter_turns": 0.5, "other_angles": 0.8}]).splitlines()[-1])
        | plain | 1,000 | 50,834 | 90.00 ± 1.00 | | 3 | 4.0 | 5e-01 | 8e-01 |
    """
    lines = [HEADINGS, "|---" * (HEADINGS.count("|") - 1) + "|"]
    for row in rows:
        spread = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.2f}"
        changes = " | ".join("" if row[key] is None else f"{row[key]:.0e}" for key in ("quarter_turns", "other_angles"))
        behind = f"{100 * row['behind']:.2f} ± {100 * row['behind_error']:.2f} " if "behind" in row else ""
        lines.append(
            f"| {row['name']} | {row['samples']:,} | {row['parameters']:,} | {100 * row['test']:.2f}{spread} | {behind}| {row['seeds']} | "
            f"{row['minutes']:.1f} | {changes} |"
        )
    return "\n".join(lines)


def means_as_markdown(results: list[dict[str, Any]]) -> str:
    """Formats the means over seeds of runs with a metric of any kind, ± their standard deviations, as a Markdown table, by the first test.

    Args:
        results: of runs of one metric, as `escnn_attn.training.train` returns them; runs without tests are left out.

    Examples:
        >>> run = {"name": "plain", "parameters": 235014, "metric": "error", "validation": 0.0685, "test": {"test": 0.0681}, "minutes": 1.6}
        >>> print(means_as_markdown([run, run | {"test": {"test": 0.0602}}]).splitlines()[-1])
        | plain | 235,014 | 0.0685 ± 0 | 0.06415 ± 0.0056 | 2 | 1.6 |
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if result.get("test"):
            groups.setdefault(result["name"], []).append(result)
    tests = list(dict.fromkeys(name for runs in groups.values() for run in runs for name in run["test"]))
    headings = ["model", "parameters", "validation", *tests, "seeds", "minutes"]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for name, runs in sorted(groups.items(), key=lambda item: statistics.mean(map(_first_test, item[1]))):
        values = [[run["validation"] for run in runs], *([run["test"][test] for run in runs] for test in tests)]
        minutes = statistics.mean(run["minutes"] for run in runs)
        cells = [name, f"{runs[0]['parameters']:,}", *map(_mean_and_spread, values), f"{len(runs)}", f"{minutes:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_and_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"
