"""The recipes of docs/export.md run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch, about itself
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:# The axis name"),
    pytest.mark.filterwarnings("ignore:No complete tensor found"),  # of torch.export.save, about constants that share memory
]

PAGE = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
RECIPES = {
    title: "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}


def run(folder: Path, monkeypatch, *titles: str) -> dict:
    """What the code below the titles defines, run in turn in a folder."""
    monkeypatch.chdir(folder)
    names: dict = {}
    with torch.no_grad():
        for title in titles:
            exec(compile(RECIPES[title], f"docs/export.md: {title}", "exec"), names)
    return names


@pytest.mark.slow
def test_the_exported_program_of_images_gives_what_the_network_does(tmp_path, monkeypatch):
    """The page itself compares them."""
    assert run(tmp_path, monkeypatch, "torch.export")["loaded"](torch.ones(5, 1, 29, 29)).shape == (5, 10)
    assert list(RECIPES) == ["torch.export", "ONNX", "Points", "What can go wrong"]


@pytest.mark.slow
def test_torch_alone_runs_the_exported_program(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, "torch.export")
    blocked = "sys.modules.update(escnn=None, escnn_attn=None)"
    code = f"import sys, torch; {blocked}; torch.export.load('network.pt2').module()(torch.ones(3, 1, 29, 29))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.slow
def test_the_exported_program_of_points_gives_what_the_network_does(tmp_path, monkeypatch):
    assert run(tmp_path, monkeypatch, "torch.export", "Points")["vectors"].shape == (3, 9, 2)


@pytest.mark.slow
def test_onnx_gives_what_the_network_does(tmp_path, monkeypatch):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    names = run(tmp_path, monkeypatch, "torch.export", "ONNX")
    assert names["logits"].shape == (5, 10)
