"""The pages of the documentation: their code runs, and what they point to exists."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_tutorial_runs_and_learns():
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "tutorial.md").read_text(), re.DOTALL):
        exec(compile(block, "docs/tutorial.md", "exec"), names)
    assert tuple(names["y"].shape) == (2, 40, 8, 8)
    assert max(error for _, error in names["errors"]) < 1e-3
    # four epochs on upright digits
    assert names["upright"] > 0.85
    assert names["rotated"] > names["upright"] - 0.06
