"""The pages of the documentation: their code runs, and what they point to exists."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def run_page(name: str) -> dict:
    """What the Python blocks of a page define, run in turn."""
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL):
        exec(compile(block, f"docs/{name}", "exec"), names)
    return names


def test_the_page_of_backbones_runs():
    names = run_page("backbones.md")
    assert [f.tensor.shape[2] for f in names["fields"]] == [24, 12, 6, 3]
    assert tuple(names["y"].shape) == (1, 4, 30, 33)


def test_the_tutorial_runs_and_learns():
    names = run_page("tutorial.md")
    assert tuple(names["y"].shape) == (2, 40, 8, 8)
    assert max(error for _, error in names["errors"]) < 1e-3
    # four epochs on upright digits
    assert names["upright"] > 0.85
    assert names["rotated"] > names["upright"] - 0.06


def test_the_switches_of_the_page_on_performance_exist():
    names = run_page("performance.md")
    images = names["torch"].rand(1, 1, 29, 29)
    assert names["without"](images).shape == (1, 10)
    assert names["network"].blocks.layers[0].attention.position.sample_counts(6.0) == names["counts"]


def test_the_page_on_weights_runs():
    assert tuple(run_page("weights.md")["logits"].shape) == (2, 10)
