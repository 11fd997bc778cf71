"""Folders of classes: sets, splits, labels, and what is wrong with a folder."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from escnn_attn.data import ImageFolder, draw_shapes, write_shapes


def fill(root: Path, *names: str, count: int = 10, side: int = 8) -> Path:
    """A folder of images whose first pixel tells their number."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(np.full((side, side + 2), number, np.uint8)).save(root / name / f"{number}.png")
    return root


def folder_of(root: Path, **options) -> ImageFolder:
    data = ImageFolder(root, **{"image_size": 9, "batch_size": 2, **options})
    data.setup()
    return data


def files(data: ImageFolder) -> dict[str, list[tuple[str, int]]]:
    return {
        name: [(f"{path.parent.name}/{path.name}", label) for path, label in part.samples]
        for name, part in data.datasets.items()
    }


def test_each_class_gives_its_share_to_every_set(tmp_path):
    fill(tmp_path, "cat", "dog")
    fill(tmp_path, "ant", count=30)
    found = files(folder_of(tmp_path, split={"validation": 0.2, "test": 0.1}))
    counts = {name: Counter(label for _, label in part) for name, part in found.items()}
    assert counts == {"train": {0: 21, 1: 7, 2: 7}, "validation": {0: 6, 1: 2, 2: 2}, "test": {0: 3, 1: 1, 2: 1}}
    everything = [path for part in found.values() for path, _ in part]
    assert len(everything) == len(set(everything)) == 50
    assert all(path.startswith(["ant", "cat", "dog"][label]) for part in found.values() for path, label in part)


def test_a_split_depends_on_its_seed_and_on_names_alone(tmp_path):
    fill(tmp_path / "a", "cat", "dog")
    fill(tmp_path / "b", "dog", "cat")
    first, elsewhere, other = (
        files(folder_of(tmp_path / name, split={"seed": seed}, seed=order))
        for name, seed, order in (("a", 0, 0), ("b", 0, 7), ("a", 1, 0))
    )
    assert first == elsewhere != other
    fill(tmp_path / "a", "ox")
    grown = files(folder_of(tmp_path / "a"))
    assert {path for path, _ in first["test"]} < {path for path, _ in grown["test"]}


def test_sets_with_a_folder_are_taken_from_there(tmp_path):
    fill(tmp_path, "train/cat", "train/dog")
    fill(tmp_path, "test/dog", count=3)
    found = files(folder_of(tmp_path))
    assert found["test"] == [("dog/0.png", 1), ("dog/1.png", 1), ("dog/2.png", 1)]
    assert {name: len(part) for name, part in found.items()} == {"train": 16, "validation": 4, "test": 3}
    fill(tmp_path, "rotated/cat", "validation/cat", count=2)
    data = folder_of(tmp_path, test_sets=["test", "rotated"])
    assert {name: len(part) for name, part in data.datasets.items()} == {"train": 20, "validation": 2, "test": 3, "rotated": 2}
    assert len(data.test_dataloader()) == 2


def test_batches_are_images_and_labels_from_workers_too(tmp_path):
    write_shapes(tmp_path, train=30, test=10, side=20)
    for workers in (0, 1):
        data = folder_of(tmp_path, num_workers=workers, channels=1)
        images, labels = next(iter(data.train_dataloader()))
        assert (images.shape, images.dtype, labels.dtype) == ((2, 1, 9, 9), torch.float32, torch.int64)
        assert 0 <= images.min() < images.max() <= 1
    again = pickle.loads(pickle.dumps(data.datasets["test"]))  # for processes that are spawned
    assert torch.equal(again[3][0], data.datasets["test"][3][0])
    assert data.description() == {
        "class_names": ["L", "crescent", "square", "star", "triangle"],
        "preparation": {"image_size": [9, 9], "channels": 1, "fit": "cover"},
    }


@pytest.mark.filterwarnings("default")
def test_broken_files_are_all_named_or_left_out(tmp_path):
    fill(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "bad.png").write_bytes(b"garbage")
    (tmp_path / "dog" / "worse.jpg").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"(?s)got 2 of 22 files that cannot be read.*skip_broken=true.*bad\.png: .*worse\.jpg: "
    ):
        folder_of(tmp_path)
    with pytest.warns(UserWarning, match=r"(?s)left out 2 of 22 files.*bad\.png.*worse\.jpg"):
        assert sum(map(len, folder_of(tmp_path, skip_broken=True).datasets.values())) == 20
    lazy = folder_of(tmp_path, skip_broken=None)
    with pytest.raises(ValueError, match=r"unreadable .*(bad\.png|worse\.jpg)"):
        [sample for part in lazy.datasets.values() for sample in (part[i] for i in range(len(part)))]


def test_other_files_and_hidden_ones_are_no_images(tmp_path):
    fill(tmp_path, "cat", "dog", ".cache")
    (tmp_path / "cat" / "notes.txt").write_text("soft")
    (tmp_path / "cat" / "._0.png").write_text("of a file manager")
    Image.new("L", (4, 4)).save(tmp_path / "cat" / "BIG.JPG")
    assert sum(map(len, folder_of(tmp_path).datasets.values())) == 21


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        ([], {"folder": "nowhere"}, r"expected a folder of images, got .*nowhere.*, which does not exist in"),
        (["cat"], {"folder": "cat/0.png"}, r"expected a folder of images, got the file .*0\.png"),
        ([], {}, r"expected a folder of images for each of two classes or more in .*, got nothing"),
        (["cat"], {}, r"two classes or more in .*, got cat"),
        (["."], {}, r"two classes or more in .*, got the images 0\.png, … themselves"),
        (["train/cat", "train/dog", "val/cat"], {}, r"expected train in .* got train, val: rename"),
        (["test/cat", "dog"], {}, r"expected train in .* got test, dog: rename"),
        (["train/cat", "train/dog", "test/cow"], {}, r"expected the classes \['cat', 'dog'\] of training, got also cow in"),
        (["cat", "dog"], {"num_classes": 3}, r"expected data\.num_classes=3 classes, got 2 in .*\['cat', 'dog'\]"),
        (["cat", "dog"], {"test_sets": ["near", "far"]}, r"expected a folder for each of test_sets=.* got no near, far"),
        (["cat", "dog"], {"split": {"validation": 0.5, "test": 0.5}}, r"expected split\.validation \+ split\.test below 1"),
        (["cat", "dog"], {"split": {"test": -1}}, r"split\.test must be in \[0, 1\), got -1"),
        (["cat", "dog"], {"skip_broken": "yes"}, r"skip_broken must be True or False, got 'yes'"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, made, options, message):
    fill(tmp_path, *made)
    folder = tmp_path / options.pop("folder", ".")
    with pytest.raises((TypeError, ValueError, OSError), match=message):
        folder_of(folder, **options)


def test_classes_without_images_or_with_too_few_are_named(tmp_path):
    fill(tmp_path, "cat", "dog")
    fill(tmp_path, "few", count=2)
    with pytest.raises(ValueError, match="expected an image of few for each of train, validation, test, got 2"):
        folder_of(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"expected images of each class in .*, got none in none"):
        folder_of(tmp_path)


def test_shapes_are_those_of_their_labels_and_masks():
    """Upright and rotated alike but for the angle; bright where the mask is; within the disc."""
    upright, rotated = draw_shapes(10, side=32), draw_shapes(10, side=32, rotated=True)
    assert np.array_equal(upright.labels, rotated.labels)
    y, x = np.mgrid[:32, :32] - 15.5
    for images, labels, masks in (upright, rotated):
        for image, label, mask in zip(images, labels, masks):
            assert set(np.unique(mask)) == {0, label + 1}
            assert image[mask > 0].mean() > image[mask == 0].mean() + 30
            assert np.hypot(x, y)[mask > 0].max() < 16
    areas = [[(mask > 0).sum() for mask in drawn.masks] for drawn in (upright, rotated)]
    assert np.allclose(*areas, rtol=0.1, atol=6)
    assert not np.array_equal(upright.masks, rotated.masks)
    assert np.array_equal(draw_shapes(10, side=32).images, upright.images)
    assert not np.array_equal(draw_shapes(10, side=32, seed=1).images, upright.images)


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "val"), ("VALID", "testing"), ("test", "dog")])
def test_names_of_sets_are_not_taken_for_classes(tmp_path, names):
    with pytest.raises(ValueError, match=f"expected train in .*, got .*{names[0]}.*: rename the folders"):
        folder_of(fill(tmp_path, *names))


def test_pixels_of_floating_point_are_found_in_advance(tmp_path):
    fill(tmp_path, "cat", "dog")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "cat" / "f.tif")
    with pytest.raises(ValueError, match=r"f\.tif: floating-point numbers"):
        folder_of(tmp_path)
    with pytest.warns(UserWarning, match=r"f\.tif"):
        folder_of(tmp_path, skip_broken=True)
