"""The Python of the README runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["network"](names["image"](names["torch"].randn(1, 1, 29, 29))).shape == (1, 1, 15, 15)
    assert [features.tensor.shape[2] for features in names["pyramid"]] == [24, 12, 6, 3]


def test_the_scripts_it_names_exist():
    named = set(re.findall(r"scripts/\w+\.py", README.read_text()))
    assert named
    assert [name for name in named if not (README.parent / name).is_file()] == []


def test_what_it_links_to_exists():
    linked = [path for path in re.findall(r"\]\(([^)#]+)\)", README.read_text()) if not path.startswith("http")]
    assert linked
    assert [path for path in linked if not (README.parent / path).is_file()] == []


@pytest.mark.slow
def test_errors_of_equivariance_are_printed():
    command = [sys.executable, "scripts/measure_equivariance.py"]
    done = subprocess.run(command, cwd=README.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"SO2|O2|C8|D4", done.stdout)) == 10
