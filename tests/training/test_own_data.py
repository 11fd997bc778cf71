"""The files and the command of docs/training.md."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from escnn_attn.training.main import train_command

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
FILES = dict(re.findall(r'```\w+ title="(.+?)"\n(.*?)```', PAGE, re.DOTALL))


def test_the_page_on_own_data_trains_and_loads(tmp_path, monkeypatch, capsys):
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, command in zip(("squares", "wells"), re.findall(r"PYTHONPATH=\. escnn-attn-train (.*)", PAGE), strict=True):
        options = shlex.split(command.replace("my_conf", str(tmp_path / "my_conf")))
        run = tmp_path / ("run" if name == "squares" else name)
        monkeypatch.setattr(sys, "argv", ["train.py", *options, f"hydra.run.dir={run}"])
        train_command()
        assert f"{name}:" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["use.py", str(tmp_path / "run")])
    runpy.run_path("use.py")
    assert "(2, 3) SteerableTransformer" in capsys.readouterr().out


@pytest.mark.parametrize("group", ["callbacks", "debug", "logger", "trainer"])
def test_the_page_lists_what_there_is(group):
    names = {path.stem for path in (Path(__file__).parents[2] / "conf" / group).glob("*.yaml")} - {"default"}
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{group}` |"))
    assert names <= set(re.findall(r"`(\w+)`", row))
