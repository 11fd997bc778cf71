"""What CONTRIBUTING.md names exists, and files of the project that no other test reads are whole."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_files_it_names_exist():
    named = re.findall(r"`?((?:docs|tests|nn|tokens|fields)/[\w/]+\.(?:md|py))`?", PAGE)
    assert "docs/extend.md" in named
    assert [name for name in named if not any((folder / name).is_file() for folder in (ROOT, ROOT / "escnn_attn"))] == []


@pytest.mark.parametrize(
    "path",
    ["CITATION.cff", ".pre-commit-config.yaml", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / ".github").rglob("*.yml")))],
)
def test_yaml_files_parse(path):
    assert isinstance(yaml.safe_load((ROOT / path).read_text()), dict)
