"""The commands and the code of docs/images.md, on images that they draw."""

import csv
import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "images.md").read_text()
CLASSIFICATION, SEGMENTATION = PAGE.split("## Masks")
ENTRIES = dict(re.findall(r'^(escnn-attn-[\w-]+) = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def run(command: list[str], monkeypatch) -> None:
    """Calls the entry point of a command, as its installed script does."""
    module, _, function = ENTRIES[command[0]].partition(":")
    monkeypatch.setattr(sys, "argv", command)
    getattr(importlib.import_module(module), function)()


@pytest.mark.slow
def test_the_page_trains_predicts_and_finds_rotated_shapes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in commands(CLASSIFICATION):
        run(command, monkeypatch)
    assert json.loads(Path("runs/shapes/results.json").read_text())["test"]["test"] > 0.9
    for file in re.findall(r"`(test_\w+\.\w+)`", CLASSIFICATION):
        assert Path("runs/shapes", file).stat().st_size > 0
    with Path("predictions/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    assert sum(row["class"] == Path(row["file"]).parent.name for row in rows) > 72
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", CLASSIFICATION, re.DOTALL):
        exec(compile(block, "docs/images.md", "exec"), names)
    assert names["logits"].shape == (1, 5)


@pytest.mark.slow
def test_the_page_trains_and_predicts_masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in commands(SEGMENTATION):
        run(command, monkeypatch)
    assert len(list(Path("masks").glob("*.png"))) == 50


def test_commands_of_the_page_are_installed_and_their_configurations_compose(monkeypatch, tmp_path):
    found = commands(PAGE)
    assert len(found) == 6
    assert {command[0] for command in found} <= set(ENTRIES)
    monkeypatch.chdir(tmp_path)
    for name in ("L", "star"):
        (tmp_path / "shapes" / name).mkdir(parents=True)
    for command in (words[1:] for words in found if words[0] == "escnn-attn-train"):
        with initialize_config_module("escnn_attn.conf", version_base="1.3"):
            config = compose("train", overrides=command)
        assert config.module.learning_rate > 0
        assert config.data.image_size == 64


@pytest.mark.parametrize("name", ["images", "segmentation"])
def test_the_page_lists_keys_that_there_are(name):
    text = (ROOT / "conf" / "data" / f"{name}.yaml").read_text()
    for key in re.findall(r"`data\.(\w+)`", PAGE):
        assert re.search(rf"^{key}:", text, re.MULTILINE), key
