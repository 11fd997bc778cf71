"""Options of the scripts."""

import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import MISSING

from escnn_attn.training import parse_options

ROOT = Path(__file__).parents[2]
SCRIPTS = [path for folder in ("scripts", "benchmarks") for path in sorted((ROOT / folder).glob("*.py"))]


USAGE = "python nothing.py folder=…"


@dataclass
class Options:
    folder: Path = MISSING
    names: str = "*"
    count: int | None = None


def test_values_have_the_types_of_the_fields():
    assert parse_options(Options, USAGE, ["folder=a/b", "names=*_50k", "count=3"]) == Options(Path("a/b"), "*_50k", 3)
    assert parse_options(Options, USAGE, ["folder=a", "count=null"]) == Options(Path("a"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected folder=…"),
        (["foldr=a"], "Key 'foldr' not in 'Options'"),
        (["folder=a", "count=many"], "'many' of type 'str' could not be converted to Integer"),
        (["a"], "a"),
    ],
)
def test_errors_name_the_key_and_show_the_options(arguments, message):
    with pytest.raises(SystemExit) as error:
        parse_options(Options, USAGE, arguments)
    assert message in str(error.value)
    assert USAGE in str(error.value)


@pytest.mark.parametrize(
    "path",
    [p for p in SCRIPTS if any(w in p.read_text() for w in ("parse_options", "escnn_attn.commands"))],
    ids=lambda path: path.name,
)
def test_every_script_describes_its_options(path, tmp_path, monkeypatch, capsys):
    """From any folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    assert f"python {path.relative_to(ROOT)}" in capsys.readouterr().out
