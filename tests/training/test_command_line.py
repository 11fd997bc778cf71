"""Options of the scripts."""

import linecache
import runpy
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import MISSING

from escnn_attn.training import brief_errors, parse_options
from escnn_attn.training.main import train_command

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


def of_the_package(source):
    """A function as it would stand in a file of the package."""
    file = str(ROOT / "escnn_attn" / "file.py")
    linecache.cache[file] = (len(source), None, source.splitlines(), file)
    exec(compile(source, file, "exec"), namespace := {})
    return namespace["command"]


REFUSED = {
    "a check": ("def command():\n raise ValueError('expected a, got b')", "expected a, got b"),
    "a check after a failure": (
        "def command():\n try: 1 / 0\n except ZeroDivisionError as error:\n  raise RuntimeError('expected a, got 0') from error",
        "expected a, got 0",
    ),
    "a file": ("def command(): open('nowhere/file')", "[Errno 2] No such file or directory: 'nowhere/file'"),
}
FAULTS = {
    "an operation": "def command(): None + 1",
    "a function of torch": "import torch\ndef command(): torch.zeros(2) @ torch.zeros(3)",
    "an assertion": "def command(): assert False",
    "an operation that is raised again": "def command():\n try: None + 1\n except TypeError:\n  raise",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_value_ends_a_command_with_one_line(kind, monkeypatch):
    source, message = REFUSED[kind]
    with pytest.raises(SystemExit) as ended:
        brief_errors(of_the_package(source))()
    assert ended.value.code == f"error: {message}"
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises((ValueError, RuntimeError, FileNotFoundError)):
        brief_errors(of_the_package(source))()


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_a_program_keeps_its_traceback(kind):
    with pytest.raises((TypeError, RuntimeError, AssertionError)):
        brief_errors(of_the_package(FAULTS[kind]))()


def test_a_check_of_another_program_keeps_its_traceback():
    with pytest.raises(ValueError, match="mine"):
        brief_errors(lambda: (_ for _ in ()).throw(ValueError("mine")))()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=ten", "epochs must be an integer, got 'ten'"),
        ("data.batch_size=0", "batch_size must be at least 1, got 0"),
        ("model.block.num_heads=0", "num_heads must be at least 1, got 0"),  # wrapped twice by Hydra
        ("model.num_classes=${count_classes:nowhere}", "expected a folder of images, got 'nowhere', which does not exist in"),
        ("experiment=images", "expected data.folder=…"),
        ("+model.bloks=3", "SteerableTransformer.__init__() got an unexpected keyword argument 'bloks'"),
        ("+trainer.limit_train_batches=-3", "You have passed invalid value -3"),  # of Lightning
    ],
)
def test_errors_of_hydra_commands_are_those_of_the_checks(tmp_path, monkeypatch, override, message, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", f"hydra.run.dir={tmp_path}", "model.channels=2", override])
    with pytest.raises(SystemExit) as ended:
        train_command()
    assert str(ended.value).startswith(f"error: {message}")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(p.stem for p in (ROOT / "escnn_attn" / "commands").glob("[!_]*.py")))
def test_every_command_tells_errors_so(command, monkeypatch):
    module = import_module(f"escnn_attn.commands.{command}")
    monkeypatch.setattr(module, "parse_options", of_the_package("def command(*_):\n raise ValueError('expected a, got b')"))
    monkeypatch.setattr(sys, "argv", [command])
    with pytest.raises(SystemExit, match="error: expected a, got b"):
        module.main()
