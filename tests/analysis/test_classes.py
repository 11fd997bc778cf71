"""Tables and pictures by class."""

import csv

import numpy as np
import pytest
from PIL import Image

from escnn_attn.analysis import class_table, plot_confusion, plot_examples
from escnn_attn.analysis.classes import write_table

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_rows_are_counted_from_samples(rng):
    true, found = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (true, found), 1)
    for index, row in enumerate(class_table(confusion, ["a", "b", "c"])):
        both = ((true == index) & (found == index)).sum()
        assert row["class"] == "abc"[index]
        assert row["support"] == (true == index).sum()
        assert row["precision"] == pytest.approx(both / (found == index).sum())
        assert row["recall"] == pytest.approx(both / (true == index).sum())
        assert row["iou"] == pytest.approx(both / ((true == index) | (found == index)).sum())
        assert len({row["precision"], row["recall"], row["iou"]}) == 3


def test_a_class_that_does_not_occur_has_no_ratios(tmp_path):
    rows = class_table(np.array([[2, 0], [0, 0]]), ["a", "b"])
    assert rows[1] == {"class": "b", "precision": None, "recall": None, "iou": None, "support": 0}
    write_table(rows, tmp_path / "new" / "table.csv")
    with (tmp_path / "new" / "table.csv").open(newline="") as file:
        assert [row["recall"] for row in csv.DictReader(file)] == ["1.0", ""]


@pytest.mark.parametrize("count", [2, 50])
def test_confusion_is_drawn_dark_where_it_is_large(tmp_path, count):
    plot_confusion(np.eye(count, dtype=int) * 20_000, [f"class {i}" for i in range(count)], tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    dark = pixels < 80
    assert dark.any()
    assert 200 < min(pixels.shape) < 2000


@pytest.mark.parametrize(("masks", "channels"), [(False, 3), (True, 1)])
def test_examples_are_drawn_with_those_that_are_wrong_in_red(tmp_path, masks, channels):
    """Nine black images, in two rows; the mask of class 1 is dark red."""
    truth = np.zeros((9, 6, 7) if masks else (9,), int)
    red = []
    for name, predicted in (("right", truth), ("wrong", truth + 1)):
        plot_examples(np.zeros((9, channels, 6, 7)), truth, predicted, ["cat", "dog"], tmp_path / f"{name}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
        red.append(int(((pixels[..., 0] > 100) & (pixels[..., 2] < 80)).sum()))
    assert red[1] > red[0] == 0
