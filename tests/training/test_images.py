"""Training on image files: the network follows the data, and checkpoints know how images were prepared."""

import csv
import json

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from escnn_attn import SteerableTransformer
from escnn_attn.data import Digits, ImageFolder
from escnn_attn.training import ClassReport, ImageClassifier, load_module
from escnn_attn.training.class_report import _Examples
from tests.training.runs import SMALL_IMAGES, configured, run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

CLASSES = ["L", "crescent", "square", "star", "triangle"]
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


def test_the_network_follows_the_data(shapes):
    config = configured(shapes, f"data.folder={shapes}", "data.channels=1", small=SMALL_IMAGES)
    assert (config.model.num_classes, config.model.in_type, config.module.num_classes) == (5, 1, 5)


def test_a_run_on_images_is_tested_and_its_checkpoint_knows_the_classes(images_run):
    assert 0 <= json.loads((images_run / "results.json").read_text())["test"]["test"] <= 1
    module = load_module(images_run / "checkpoints" / "last.ckpt")
    assert module.hparams["data"] == {
        "class_names": CLASSES,
        "preparation": {"image_size": [13, 13], "channels": 3, "fit": "cover"},
    }
    assert module.hparams["normalization"] == {"mean": 0.5, "std": [0.2, 0.3, 0.4]}


def test_a_loaded_module_normalizes(images_run):
    module, images = load_module(images_run / "checkpoints" / "last.ckpt"), torch.rand(2, 3, 13, 13)
    std = torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    torch.testing.assert_close(module(images), module.model((images - 0.5) / std))
    with pytest.raises(ValueError, match=r"expected normalization\.std of one number, or one for each of 1 channels, got"):
        module(images[:, :1])


def test_normalization_comes_after_augmentation():
    """The deformation fills with black, and cuts off at 0 and 1."""
    module = ImageClassifier(
        torch.nn.Flatten(), augmentation={"degrees": 0}, normalization={"mean": 1, "std": 0.1}, num_classes=16
    )
    images = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(module(module.inputs(images)), (images.flatten(1) - 1) / 0.1, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_classes=4", r"expected model\.num_classes=5 for the classes \['L', .* of the data, got 4"),
        ("model.in_type=1", r"expected model\.in_type=3 for images of data\.channels=3, got a network of 1 channels"),
        ("data.num_classes=6", r"expected data\.num_classes=6 classes, got 5"),
        ("module.normalization={mean: 2}", r"normalization\.mean must be at least 0 and at most 1, got 2"),
        ("module.normalization={std: 0}", r"normalization\.std must be above 0, got 0"),
    ],
)
def test_what_does_not_fit_the_data_is_named_before_training(tmp_path, shapes, override, message):
    with pytest.raises(Exception, match=message):
        run(tmp_path, f"data.folder={shapes}", override, small=SMALL_IMAGES)
    assert not (tmp_path / "checkpoints").exists()


def test_data_that_differ_from_those_of_the_training_are_refused(images_run, shapes):
    module = load_module(images_run / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"expected data with the preparation of the training, \{'image_size': \[13, 13\]"):
        pl.Trainer(**QUIET).test(module, ImageFolder(shapes, image_size=17), verbose=False)
    assert pl.Trainer(**QUIET).test(module, ImageFolder(shapes, image_size=13), verbose=False)


def test_data_without_description_leave_no_trace(tmp_path):
    network = SteerableTransformer("SO2", channels=2, max_frequency=1, depth=1)
    module = ImageClassifier(network, test_sets=("upright", "rotated"))
    pl.Trainer(**QUIET, max_steps=1, limit_val_batches=0, default_root_dir=tmp_path).fit(module, Digits())
    assert "data" not in module.hparams


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_test_leaves_what_it_tells_of_each_class(images_run, shapes):
    """Recomputed from the checkpoint: counts by true and predicted class."""
    module, data = load_module(images_run / "checkpoints" / "last.ckpt"), ImageFolder(shapes, image_size=13)
    data.setup()
    images, truth = next(iter(data.test_dataloader()[0]))
    found = module(images).argmax(1)
    confusion = table(images_run / "test_confusion.csv")
    for i, row in enumerate(confusion):
        assert row["true class"] == CLASSES[i]
        assert [int(row[name]) for name in CLASSES] == [int(((truth == i) & (found == j)).sum()) for j in range(5)]
    rows = table(images_run / "test_classes.csv")
    assert [row["class"] for row in rows] == CLASSES
    assert [int(row["support"]) for row in rows] == [2] * 5
    hits = sum(float(row["recall"]) * int(row["support"]) for row in rows)
    assert hits / 10 == pytest.approx(json.loads((images_run / "results.json").read_text())["test"]["test"])
    for name in ("confusion", "examples"):
        assert Image.open(images_run / f"test_{name}.png").width > 200


def test_examples_are_a_choice_of_all_classes_half_of_them_wrong():
    examples, labels = _Examples(), torch.arange(200) // 40
    for part in torch.arange(200).split(25):
        images = part[:, None, None, None].float()
        examples.add(images, labels[part], torch.where(part % 2 == 0, labels[part], (labels[part] + 1) % 5))
    images, truth, found = examples.chosen()
    assert len(images) == 16
    assert (truth == found).sum() == 8
    assert set(truth) == set(range(5))
    assert (truth == images[:, 0, 0, 0] // 40).all()
    few = _Examples()
    few.add(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2]), torch.tensor([0, 0, 0]))
    assert few.chosen()[2].tolist() == [0, 0, 0]


def test_data_without_names_of_classes_have_no_report(tmp_path):
    network = SteerableTransformer("SO2", channels=2, max_frequency=1, depth=1)
    module, report = ImageClassifier(network, test_sets=("upright", "rotated")), ClassReport(tmp_path)
    pl.Trainer(**QUIET, limit_test_batches=1, callbacks=[report]).test(module, Digits(), verbose=False)
    assert not list(tmp_path.iterdir())
