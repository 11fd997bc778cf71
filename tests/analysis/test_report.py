"""Tables and pictures of finished runs."""

import json
import runpy
import sys

import numpy as np
import pytest

from escnn_attn.analysis import as_markdown, compare_runs, describe
from escnn_attn.analysis.comparison import pack
from escnn_attn.analysis.rotation import ANGLES


def result(name: str, seed: int, accuracy: float, samples: int = 10_000) -> dict:
    return {
        "name": name, "seed": seed, "samples": samples, "parameters": 50_000, "minutes": 4.0 + seed, "finished": True,
        "test": {"rotated": accuracy}, "angles": ANGLES, "accuracy_by_angle": [accuracy] * len(ANGLES),
        "change_by_angle": [0.0 if angle % 90 == 0 else 0.1 for angle in ANGLES],
        "correct": {"rotated": pack(np.arange(800) < 800 * accuracy)},
    }  # fmt: skip


RESULTS = [result("plain", 0, 0.90), result("steerable", 0, 0.97), result("steerable", 1, 0.99), result("plain", 0, 0.6, 1000)]


def test_seeds_are_averaged_and_the_best_comes_first():
    rows = compare_runs([*RESULTS, {"name": "not tested"}])
    assert [(row["name"], row["samples"], row["seeds"]) for row in rows] == [
        ("steerable", 10_000, 2), ("plain", 10_000, 1), ("plain", 1000, 1),
    ]  # fmt: skip
    assert rows[0]["test"] == pytest.approx(0.98)
    assert rows[0]["deviation"] == pytest.approx(0.01 * 2**0.5)
    assert rows[1]["deviation"] is None
    assert rows[0]["quarter_turns"] == 0
    assert rows[0]["other_angles"] == pytest.approx(0.1)
    assert "| steerable | 10,000 | 50,000 | 98.00 ± 1.41 | | 2 | 4.5 | 0e+00 | 1e-01 |" in as_markdown(rows)


def test_differences_are_of_paired_images():
    hits = {"a": np.arange(800) < 720, "b": np.arange(800) < 704, "c": np.arange(800) >= 96}
    results = [result(name, 0, float(hit.mean())) | {"correct": {"rotated": pack(hit)}} for name, hit in hits.items()]
    first, second, third = compare_runs(results)
    assert (first["name"], second["name"], third["name"]) == ("a", "b", "c")
    assert "behind" not in first
    assert second["behind"] == pytest.approx(16 / 800)
    # b misses what a misses and 16 more; c and a miss different images, and their difference is less sure
    assert second["behind_error"] == pytest.approx((0.02 * 0.98 / 800) ** 0.5)
    assert third["behind_error"] > 3 * second["behind_error"]


def test_runs_that_kept_no_hits_are_compared_without_differences():
    old = result("old", 0, 0.8)
    del old["correct"]
    assert "behind" not in compare_runs([result("new", 0, 0.9), old])[1]


def test_runs_without_angles_are_compared_by_their_tests():
    upright = result("upright", 0, 0.9)
    del upright["angles"]
    (row,) = compare_runs([upright])
    assert row["quarter_turns"] is None
    assert as_markdown([row]).endswith("| 90.00 | | 1 | 4.0 |  |  |")


def test_a_metric_of_ones_own_reads_by_its_name():
    run = {"name": "mine", "parameters": 1, "metric": "entropy", "test": {"turned": 0.5}}
    assert describe(run) == "mine: 1 parameters, turned 0.5"


def test_the_script_makes_the_table_and_the_pictures(tmp_path, monkeypatch, capsys):
    for index, entry in enumerate(RESULTS):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "results.json").write_text(json.dumps(entry))
    monkeypatch.setattr(sys, "argv", ["compare.py", f"folder={tmp_path}"])
    runpy.run_path("scripts/compare.py", run_name="__main__")
    assert "98.00 ± 1.41" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("*.png")} == {"comparison_by_angle.png", "sample_efficiency.png"}


def test_the_script_makes_a_table_of_errors(tmp_path, monkeypatch, capsys):
    for seed, error in enumerate([0.02, 0.03]):
        (tmp_path / str(seed)).mkdir()
        result = {"name": "points", "metric": "error", "parameters": 1000, "validation": error, "minutes": 2.0, "seed": seed}
        result |= {"test": {"test": error, "moved": 2 * error}, "samples": 10, "overrides": [], "finished": True}
        (tmp_path / str(seed) / "results.json").write_text(json.dumps(result))
    monkeypatch.setattr(sys, "argv", ["compare.py", f"folder={tmp_path}"])
    runpy.run_path("scripts/compare.py", run_name="__main__")
    assert "| points | 1,000 | 0.025 ± 0.0071 | 0.025 ± 0.0071 | 0.05 ± 0.014 | 2 | 2.0 |" in capsys.readouterr().out
