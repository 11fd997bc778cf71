"""The README: its Python runs, what it names exists, and its figures are those of the records."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "docs" / "results"


def figures(start: str) -> str:
    """The line of a table of the README that starts so."""
    (line,) = (line for line in README.splitlines() if line.startswith(f"| {start}"))
    return line


def accuracies(system: str, images: int) -> list[float]:
    """Test accuracies of a system of the comparison in percent, of all seeds."""
    folders = sorted((RESULTS / "comparison").glob(f"{system}_{images}_*"))
    return [100 * json.loads((folder / "results.json").read_text())["test"]["rotated"] for folder in folders]


def test_it_is_short():
    lines = README.splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 145] == []


def test_the_example_runs():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["network"](names["image"](names["torch"].randn(1, 1, 29, 29))).shape == (1, 1, 15, 15)


def test_the_files_it_names_exist():
    named = set(re.findall(r"(?:scripts|benchmarks|tests)/\w+\.py", README))
    linked = {path for path in re.findall(r"\]\(([^)#]+)\)", README) if not path.startswith("http")}
    assert named
    assert linked
    assert [name for name in named | linked if not (ROOT / name).is_file()] == []


def test_the_experiments_it_names_exist():
    named = re.findall(r"experiment=(\w+)|^\|.*\| `(\w+) [\w.]+=", README, re.MULTILINE)
    assert len(named) == 5
    assert [name for name in map("".join, named) if not (ROOT / "conf" / "experiment" / f"{name}.yaml").is_file()] == []


def test_figures_of_time_and_memory_are_those_of_the_records():
    image = json.loads((RESULTS / "images.json").read_text())["times"]["network"]
    assert f"{image['ratio']:.2f} ± {image['spread']:.2f} times" in figures("**Fast**")
    growth = {
        name: {int(tokens): row["bytes"] for tokens, row in rows.items()}
        for name, rows in json.loads((RESULTS / "growth.json").read_text())["growth"].items()
    }
    (small, large), memory = (1024, 16384), growth["block"]
    assert f"{memory[small] / 2**20:.0f} to {memory[large] / 2**20:.0f} MB" in figures("**No memory of tokens²**")


def test_accuracies_are_those_of_the_records():
    shipped = json.loads((ROOT / "escnn_attn/pretrained/rotmnist/config.json").read_text())
    assert f"| {100 * shipped['test']['rotated']:.2f} %" in figures("**Accurate**")
    steerable = accuracies("steerable_so2_50k", 10000)
    line = figures("rotated MNIST")
    assert f"{np.mean(steerable):.2f} ± {np.std(steerable, ddof=1):.2f} %" in line
    for name in ("plain", "cnn_so2"):
        assert f"{np.mean(accuracies(f'{name}_50k', 10000)):.2f}" in line
    for name in ("steerable_so2", "plain", "gcnn_d4"):
        assert f"{accuracies(f'{name}_50k', 1000)[0]:.2f}" in figures("1,000 images")


@pytest.mark.slow
def test_errors_of_equivariance_are_printed():
    command = [sys.executable, "scripts/measure_equivariance.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"SO2|O2|C8|D4", done.stdout)) == 10
    for error in re.findall(r"\d\.\de-\d+", figures("**All rotations**") + figures("**Reflections**")):
        assert re.sub(r"e-(\d)\b", r"e-0\1", error) in done.stdout
