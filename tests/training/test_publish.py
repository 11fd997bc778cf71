"""The command that publishes a run, to a folder and to the Hugging Face Hub."""

import json
import sys

import pytest

from escnn_attn import SteerableTransformer
from escnn_attn.commands.publish import main
from tests.models.test_hub import hub  # noqa: F401


def publish(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["publish.py", *map(str, arguments)])
    main()


def test_a_run_is_uploaded_with_its_results(hub, monkeypatch, images_run, capsys):  # noqa: F811
    publish(monkeypatch, f"run={images_run}", "folder=weights/mine", "checkpoint=best", "hub=user/shapes", "private=true")
    assert "https://huggingface.co/user/shapes" in capsys.readouterr().out
    assert hub.calls[0] == ("create_repo", "user/shapes", True, True, None)
    accuracy = json.loads((images_run / "results.json").read_text())["test"]["test"]
    assert f"| accuracy, test | {accuracy} |" in (hub.root / "user/shapes/README.md").read_text()
    assert SteerableTransformer.from_pretrained("user/shapes").in_type.size == 3


def test_a_hub_that_cannot_be_is_named_before_anything_is_written(hub, monkeypatch, tmp_path, images_run):  # noqa: F811
    with pytest.raises(SystemExit, match="error: expected a repository 'user/name' of the Hugging Face Hub, got 'shapes'"):
        publish(monkeypatch, f"run={images_run}", "folder=mine", "hub=shapes")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SystemExit, match=r"pip install 'escnn-attn\[hub\]'"):
        publish(monkeypatch, f"run={images_run}", "folder=mine", "hub=user/shapes")
    assert not (tmp_path / "mine").exists()
