"""Reads what the runs of a sweep left in its folder."""

from pathlib import Path
from typing import Any, NamedTuple

from escnn_attn.files import read_json


class Runs(NamedTuple):
    """Runs of a folder.

    Attributes:
        results: of runs that were evaluated, as `escnn_attn.training.train` returns them.
        failures: what became of each other run, and of each damaged file, by the name of its folder.
    """

    results: list[dict[str, Any]]
    failures: dict[str, str]


def read_runs(folder: Path) -> Runs:
    """Reads the results and failures of the runs in the folders of a folder, in the order of their names."""
    runs = Runs([], {})
    for run in sorted(path for path in folder.glob("*") if (path / "settings.json").exists() or _files(path)):
        try:
            found = [read_json(path) for path in _files(run)]
        except ValueError as error:
            runs.failures[run.name] = str(error)
            continue
        errors = [part["error"] for part in found if "error" in part]
        runs.results.extend(part for part in found if "error" not in part)
        if errors:
            runs.failures[run.name] = errors[0]
        elif not found:
            runs.failures[run.name] = "interrupted: no results"
    return runs


def _files(run: Path) -> list[Path]:
    return [path for path in (run / "failure.json", run / "results.json") if path.exists()]
