"""Tables and pictures of finished runs."""

import json
import runpy
import sys

import pytest

from escnn_attn.training.data import ANGLES
from escnn_attn.training.report import as_markdown, compare


def result(name: str, seed: int, accuracy: float, samples: int = 10_000) -> dict:
    return {
        "name": name, "seed": seed, "samples": samples, "parameters": 50_000, "minutes": 4.0 + seed, "finished": True,
        "test": {"rotated": accuracy}, "angles": ANGLES, "accuracy_by_angle": [accuracy] * len(ANGLES),
    }  # fmt: skip


RESULTS = [result("plain", 0, 0.90), result("steerable", 0, 0.97), result("steerable", 1, 0.99), result("plain", 0, 0.6, 1000)]


def test_seeds_are_averaged_and_the_best_comes_first():
    rows = compare([*RESULTS, {"name": "not tested"}])
    assert [(row["name"], row["samples"], row["seeds"]) for row in rows] == [
        ("steerable", 10_000, 2), ("plain", 10_000, 1), ("plain", 1000, 1),
    ]  # fmt: skip
    assert rows[0]["test"] == pytest.approx(0.98)
    assert rows[0]["deviation"] == pytest.approx(0.01 * 2**0.5)
    assert rows[1]["deviation"] is None
    assert "| steerable | 10,000 | 50,000 | 98.00 ± 1.41 | 2 | 4.5 |" in as_markdown(rows)


def test_the_script_makes_the_table_and_the_pictures(tmp_path, monkeypatch, capsys):
    for index, entry in enumerate(RESULTS):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "results.json").write_text(json.dumps(entry))
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path)])
    runpy.run_path("scripts/compare.py", run_name="__main__")
    assert "98.00 ± 1.41" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("*.png")} == {"comparison_by_angle.png", "sample_efficiency.png"}
