"""The pages of the documentation: their code runs, and what they point to exists."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from escnn_attn.testing import assert_equivariant

DOCS = Path(__file__).parents[1] / "docs"
#: pages that say by `assert` what their code gives
ASSERTING = ("points.md", "conventions.md", "coming-from.md", "escnn-faults.md")


def run_blocks(text: str, name: str) -> dict:
    """What the Python blocks of a text define, run in turn as one script; errors name the line of the page."""
    names: dict = {"__name__": "page"}
    for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], f"docs/{name}", "exec"), names)
    return names


def run_page(name: str) -> dict:
    """What the Python blocks of a page define."""
    return run_blocks((DOCS / name).read_text(), name)


def sections(name: str) -> dict[str, str]:
    """The texts below the second headings of a page."""
    return dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (DOCS / name).read_text(), re.DOTALL | re.MULTILINE))


RECIPES = sections("extend.md")


@pytest.mark.parametrize("name", ASSERTING)
def test_pages_say_what_their_code_gives(name):
    assert sum(line.lstrip().startswith("assert") for line in (DOCS / name).read_text().splitlines()) > 10
    run_page(name)


def test_there_are_five_recipes_that_end_with_the_check():
    code = {title: "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)) for title, text in RECIPES.items()}
    assert all(code.values())
    assert sum("testing.assert_equivariant(" in block for block in code.values()) == 5


@pytest.mark.parametrize("title", RECIPES)
def test_recipes_run_each_alone(title):
    run_blocks(RECIPES[title], "extend.md")


def test_the_configuration_of_a_block_of_ones_own_makes_a_network(tmp_path, monkeypatch):
    text = RECIPES["A block, and configurations that name it"]
    ((path, config),) = re.findall(r'```yaml title="(.+?)"\n(.*?)```', text, re.DOTALL)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(config)
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_blocks.py").write_text(code[1].split("\n\n\nnetwork =")[0])
    monkeypatch.syspath_prepend(tmp_path)
    (command,) = re.findall(r"PYTHONPATH=\. escnn-attn-train --config-dir my_conf (.*)", text)
    with initialize_config_module("escnn_attn.conf", version_base="1.3"):
        made = compose("train", overrides=[*command.split(), f"hydra.searchpath=[file://{tmp_path}/my_conf]"]).model
    network = instantiate(made)
    assert [type(layer).__name__ for layer in network.blocks.layers][:3] == ["ParallelBlock"] * 3
    assert_equivariant(network.blocks.layers[0], size=5)


@pytest.mark.slow
def test_commands_show_faults_of_escnn_alone_and_that_they_are_mended():
    """Each in a process of its own, as `import escnn_attn` mends some."""
    found = re.findall(r'```sh title="(.+?)"\n(.*?)```', (DOCS / "escnn-faults.md").read_text(), re.DOTALL)
    assert len(found) == 3
    for title, command in found:
        if "lie_learn" not in command and find_spec("lie_learn") is None:
            continue  # escnn alone cannot be imported here
        words = shlex.split(command)
        done = subprocess.run([sys.executable, "-W", "ignore", *words[1:]], capture_output=True, text=True, check=False)
        expected = title.partition(": ")[2].split(", ")
        assert (done.returncode != 0) == title.startswith("escnn alone"), done.stderr
        assert [part for part in expected if part not in done.stderr] == []


def test_the_page_of_backbones_runs():
    names = run_page("backbones.md")
    assert [f.tensor.shape[2] for f in names["fields"]] == [24, 12, 6, 3]
    assert tuple(names["y"].shape) == (1, 4, 30, 33)


def test_the_tutorial_runs():
    """With one of its four epochs."""
    text = (DOCS / "tutorial.md").read_text()
    assert text.count("range(4)") == 1
    names = run_blocks(text.replace("range(4)", "range(1)"), "tutorial.md")
    assert tuple(names["y"].shape) == (2, 40, 8, 8)
    assert max(error for _, error in names["errors"]) < 1e-3
    assert names["upright"] > 0.3


@pytest.mark.slow
def test_the_tutorial_learns_upright_digits_and_reads_rotated_ones():
    names = run_page("tutorial.md")
    assert names["upright"] > 0.85
    assert names["rotated"] > names["upright"] - 0.06


def test_the_switches_of_the_page_on_performance_exist():
    names = run_page("performance.md")
    images = names["torch"].rand(1, 1, 29, 29)
    assert names["without"](images).shape == (1, 10)
    assert names["network"].blocks.layers[0].attention.position.sample_counts(6.0) == names["counts"]


def test_the_page_on_weights_runs():
    assert tuple(run_page("weights.md")["logits"].shape) == (2, 10)
