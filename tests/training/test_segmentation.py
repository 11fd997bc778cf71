"""Segmentation: loss, metric, deformation of masks, a run, and the masks that the command writes."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import multiclass_jaccard_index

from escnn_attn import Stage, SteerableDenseTransformer
from escnn_attn.data import write_shapes
from escnn_attn.training import ImageClassifier, ImageSegmentation, load_module
from tests.training.runs import run
from tests.training.test_prediction import predict

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

SMALL_MASKS = (
    "data=segmentation", "data.num_classes=6", "data.image_size=16", "data.batch_size=8", "module=segmentation",
    "model=dense", "model.group=C4", "model.stages=[{channels: 2, depth: 1, stride: 2}]", "name=dense",
    "module.augmentation={degrees: 180, flip: 0.5}", "callbacks.progress=null", "epochs=1", "logger=[]",
)  # fmt: skip


@pytest.fixture(scope="module")
def masks_run(tmp_path_factory):
    """The folder of a small run, with the data below it."""
    folder = tmp_path_factory.mktemp("masks_run")
    write_shapes(folder / "data", train=24, test=8, side=16, per_image=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Lightning
        run(folder, f"data.folder={folder / 'data'}", small=SMALL_MASKS)
    return folder


def test_logits_turn_with_the_image():
    network = SteerableDenseTransformer("C4", in_type=3, out_fields=6, stages=[Stage(2, depth=1)])
    module, images = ImageSegmentation(network, num_classes=6).eval(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(module(images.rot90(1, (2, 3))), module(images).rot90(1, (2, 3)), atol=1e-4, rtol=1e-4)


def test_loss_and_metric_leave_out_pixels_that_do_not_count():
    module, masks = ImageSegmentation(torch.nn.Conv2d(3, 4, 1), num_classes=4), torch.randint(4, (2, 8, 8))
    logits = torch.randn(2, 4, 8, 8)
    part = masks.clone()
    part[:, :3] = 255
    expected = torch.nn.functional.cross_entropy(logits[:, :, 3:], masks[:, 3:])
    torch.testing.assert_close(module.loss(logits, part), expected)
    assert module.loss(logits, torch.full_like(masks, 255)) == 0
    metric = module.new_metric()
    found = logits.argmax(1)[:, 3:], masks[:, 3:]
    union = [((found[0] == c) | (found[1] == c)).sum() for c in range(4)]
    both = [((found[0] == c) & (found[1] == c)).sum() for c in range(4)]
    mean = sum(b / u for b, u in zip(both, union)) / 4
    torch.testing.assert_close(metric(logits, part), mean)
    torch.testing.assert_close(multiclass_jaccard_index(*found, num_classes=4), mean)


def test_classes_that_do_not_occur_do_not_lower_the_metric():
    metric, masks = (
        ImageSegmentation(torch.nn.Conv2d(3, 4, 1), num_classes=4).new_metric(),
        torch.zeros(1, 4, 4, dtype=torch.long),
    )
    assert metric(torch.nn.functional.one_hot(masks, 4).movedim(-1, 1).float(), masks) == 1


def test_training_deforms_images_and_masks_alike(monkeypatch):
    """A network that sees the class in the color is right on every pixel that counts, also after a deformation."""
    module = ImageSegmentation(torch.nn.Identity(), num_classes=3, augmentation={"shift": 3.0})
    seen = []
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "on_predictions", lambda _, predictions, targets: seen.append((predictions, targets)))
    masks = torch.randint(3, (4, 1, 2, 2)).repeat_interleave(6, 2).repeat_interleave(6, 3)[:, 0]
    images = torch.nn.functional.one_hot(masks, 3).movedim(-1, 1).float()
    module.training_step((images, masks), 0)
    ((predictions, targets),) = seen
    counted = targets != 255
    assert 0.3 < counted.float().mean() < 1
    assert (predictions.argmax(1) == targets)[counted].float().mean() > 0.95
    assert not torch.equal(predictions, images)


def test_what_is_no_segmentation_is_said():
    with pytest.raises(
        ValueError, match=r"expected a model with num_classes=4 logits at each pixel, \(2, 4, 8, 8\), got \(2, 4, 4, 4\)"
    ):
        ImageSegmentation(torch.nn.Conv2d(3, 4, 2, stride=2), num_classes=4)(torch.rand(2, 3, 8, 8))
    module = ImageSegmentation(torch.nn.Conv2d(3, 4, 1), num_classes=4)
    with pytest.raises(
        TypeError, match=r"expected masks \(b, height, width\), such as those of data=segmentation, got targets \(2,\)"
    ):
        module.training_step((torch.rand(2, 3, 8, 8), torch.tensor([0, 1])), 0)
    with pytest.raises(
        TypeError, match=r"expected a label for each image, got targets \(2, 8, 8\): masks are for module=segmentation"
    ):
        ImageClassifier(torch.nn.Flatten()).training_step((torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8).long()), 0)


def test_a_run_writes_masks_of_the_size_of_each_image(masks_run, tmp_path, monkeypatch, capsys):
    assert 0 <= json.loads((masks_run / "results.json").read_text())["test"]["test"] <= 1
    with (masks_run / "test_classes.csv").open(newline="") as file:
        assert sum(int(row["support"]) for row in csv.DictReader(file)) == 8 * 16 * 16
    assert (masks_run / "test_examples.png").exists()
    checkpoint = masks_run / "checkpoints" / "best.ckpt"
    source = Image.open(masks_run / "data" / "test" / "images" / "00001.png")
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    source.save(tmp_path / "photos" / "a.png")
    source.resize((32, 32), Image.Resampling.NEAREST).save(tmp_path / "photos" / "sub" / "a.bmp")
    source.resize((40, 21)).save(tmp_path / "photos" / "wide.png")
    predict(monkeypatch, tmp_path, f"checkpoint={checkpoint}", "photos", "output=out")
    assert "3 masks in out" in capsys.readouterr().out
    with torch.no_grad():
        logits = load_module(checkpoint)(torch.from_numpy(np.array(source)).permute(2, 0, 1)[None] / 255)
    small = np.array(Image.open(tmp_path / "out" / "a.png"))
    assert np.array_equal(small, logits[0].argmax(0))
    large = np.array(Image.open(tmp_path / "out" / "sub" / "a.png"))
    assert (large == small.repeat(2, 0).repeat(2, 1)).mean() > 0.95  # but where two logits are nearly equal
    wide = np.array(Image.open(tmp_path / "out" / "wide.png"))
    assert wide.shape == (21, 40)
    assert (wide[:, :9] == 255).all()
    assert (wide[:, -9:] == 255).all()
    assert (wide[:, 11:29] < 6).all()
    source.save(tmp_path / "photos" / "a.bmp")
    with pytest.raises(
        SystemExit, match=r"expected files of different names, got photos/a\.bmp and photos/a\.png, whose results"
    ):
        predict(monkeypatch, tmp_path, f"checkpoint={checkpoint}", "photos", "output=more")
    assert not (tmp_path / "more").exists()
