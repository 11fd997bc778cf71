"""The command that predicts: files, folders and patterns, in the preparation of the training."""

import csv
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from escnn_attn.data import ImagePreparation
from escnn_attn.training import ImageClassifier, ImagePredictor, find_images, load_module

SCRIPT = str(Path(__file__).parents[2] / "scripts" / "predict.py")


def predict(monkeypatch, folder: Path, *arguments: object) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
    runpy.run_path(SCRIPT, run_name="__main__")


@pytest.fixture
def photos(tmp_path, rng):
    """Six pictures of several sizes, one of them grey, in a folder and below."""
    for number, (name, side) in enumerate([("a.png", 13), ("b.jpg", 20), ("c.png", 13), ("sub/a.png", 31), ("sub/d.JPG", 40)]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (side, side + 3) if number == 2 else (side + number, side, 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_probabilities_are_those_of_the_loaded_module(tmp_path, monkeypatch, photos, images_run, capsys):
    checkpoint = images_run / "checkpoints" / "best.ckpt"
    predict(monkeypatch, tmp_path, f"checkpoint={checkpoint}", "photos", "output=out", "batch_size=2")
    assert "5 images: out/predictions.csv" in capsys.readouterr().out
    rows, module = rows_of(tmp_path / "out" / "predictions.csv"), load_module(checkpoint)
    assert [row["file"] for row in rows] == [f"photos/{name}" for name in ("a.png", "b.jpg", "c.png", "sub/a.png", "sub/d.JPG")]
    names = ["L", "crescent", "square", "star", "triangle"]
    for row in rows:
        images = ImagePreparation(13)(Image.open(tmp_path / row["file"]))[None]
        expected = module(images)[0].detach().softmax(dim=0)
        found = torch.tensor([float(row[f"p({name})"]) for name in names])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert row["class"] == names[int(found.argmax())]


def test_places_are_files_folders_and_patterns_each_image_once(photos):
    found = find_images([photos / "sub" / "a.png", photos / "*.png", photos / "sub", str(photos / "**" / "*.JPG")])
    assert {str(path.relative_to(photos)): str(name) for path, name in found.items()} == {
        "sub/a.png": "a.png", "a.png": "a.png", "c.png": "c.png", "sub/d.JPG": "d.JPG",
    }  # fmt: skip
    twice = find_images([photos, photos / "sub" / "a.png"])
    assert [str(name) for name in twice.values()] == ["a.png", "b.jpg", "c.png", "sub/a.png", "sub/d.JPG"]


@pytest.mark.filterwarnings("default")
def test_files_that_cannot_be_read_are_named_before_anything_is_written(tmp_path, monkeypatch, photos, images_run, capsys):
    checkpoint = f"checkpoint={images_run}/checkpoints/best.ckpt"
    (photos / "bad.png").write_bytes(b"garbage")
    (photos / "empty.jpg").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"(?s)got 2 of 7 files that cannot be read.*bad\.png: .*empty\.jpg: "):
        predict(monkeypatch, tmp_path, checkpoint, "photos")
    assert not (tmp_path / "predictions").exists()
    with pytest.warns(UserWarning, match=r"(?s)left out 2 of 7 files.*bad\.png"):
        predict(monkeypatch, tmp_path, checkpoint, "photos", "skip_broken=true")
    assert "5 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected files, folders or patterns of images"),
        (["nowhere/*.png"], r"expected an image, a folder of images or a pattern, got 'nowhere/\*\.png'"),
        (["photos", "devise=cpu"], "Key 'devise' not in 'Options'"),
        (["photos", "batch_size=0"], "batch_size must be at least 1, got 0"),
        (["photos", "checkpoint=none.ckpt"], "expected a checkpoint file, got 'none.ckpt'"),
    ],
)
def test_arguments_that_are_wrong_are_named(tmp_path, monkeypatch, photos, images_run, arguments, message):
    with pytest.raises(SystemExit, match=message):
        predict(monkeypatch, tmp_path, f"checkpoint={images_run}/checkpoints/best.ckpt", *arguments)


def test_checkpoints_that_do_not_say_how_images_were_prepared_are_refused():
    module = ImageClassifier(torch.nn.Flatten())
    with pytest.raises(ValueError, match=r"expected a checkpoint of a training on image files, .* prepared: ImageClassifier"):
        ImagePredictor(module)
    module.hparams["data"] = {"class_names": ["a", "b"], "preparation": {"image_size": [5, 5], "channels": 3, "fit": "cover"}}
    module.model.in_type = type("Type", (), {"size": 1})
    with pytest.raises(
        ValueError, match=r"expected model\.in_type=3 for images of data\.channels=3, got a network of 1 channels"
    ):
        ImagePredictor(module)
