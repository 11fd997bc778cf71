"""The recipes of CONTRIBUTING.md run, each alone."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = dict(re.findall(r"^### (.+?)\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))


def test_every_recipe_has_code():
    assert list(RECIPES) == re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    assert len(RECIPES) == 5


@pytest.mark.parametrize("title", RECIPES)
def test_recipes_run(title):
    exec(compile(RECIPES[title], f"CONTRIBUTING.md: {title}", "exec"), {"__name__": "recipe"})


@pytest.mark.parametrize(
    "path",
    ["CITATION.cff", ".pre-commit-config.yaml", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / ".github").rglob("*.yml")))],
)
def test_yaml_files_parse(path):
    assert isinstance(yaml.safe_load((ROOT / path).read_text()), dict)
