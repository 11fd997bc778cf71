"""Images with masks: pairs, sizes and classes."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from escnn_attn.data import SegmentationFolder, draw_shapes, write_shapes


def folder_of(root, **options) -> SegmentationFolder:
    data = SegmentationFolder(root, **{"num_classes": 6, "image_size": 16, "batch_size": 2, **options})
    data.setup()
    return data


def read(root, **options) -> list:
    """Every sample of every set."""
    return [part[index] for part in folder_of(root, **options).datasets.values() for index in range(len(part))]


@pytest.fixture
def pairs(tmp_path):
    """Twelve pictures of two shapes and their masks."""
    write_shapes(tmp_path / "made", train=12, test=0, side=16, per_image=2)
    shutil.move(tmp_path / "made" / "train", tmp_path / "pairs")
    return tmp_path / "pairs"


def test_masks_are_those_that_were_drawn(pairs):
    data, drawn = folder_of(pairs), draw_shapes(12, side=16, per_image=2)
    sizes = {name: len(part) for name, part in data.datasets.items()}
    assert sizes == {"train": 8, "validation": 2, "test": 2}
    for part in data.datasets.values():
        for (path, _), (image, mask) in zip(part.samples, part):
            number = int(path.stem)
            assert torch.equal(mask, torch.from_numpy(drawn.masks[number].astype(np.int64)))
            assert torch.equal((255 * image).round().byte(), torch.from_numpy(drawn.images[number]).permute(2, 0, 1))
    images, masks = next(iter(data.train_dataloader()))
    assert (images.shape, masks.shape, masks.dtype) == ((2, 3, 16, 16), (2, 16, 16), torch.int64)
    assert data.description()["class_names"] == ["0", "1", "2", "3", "4", "5"]


def test_pixels_outside_of_the_image_do_not_count(pairs):
    _, mask = folder_of(pairs, image_size=[16, 24], fit="contain").datasets["train"][0]
    assert (mask[:, :4] == 255).all()
    assert (mask[:, 20:] == 255).all()
    assert (mask[:, 4:20] < 6).all()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda p: shutil.rmtree(p / "masks"), {}, r"(?s)expected a mask .* for each image.*00000\.png.* and 2 more"),
        (lambda p: (p / "images" / "00003.png").unlink(), {}, r"got alone .*masks/00003\.png"),
        (lambda p: shutil.rmtree(p / "images"), {}, "expected images in .*images, and their masks in .*masks, got none"),
        (lambda p: (p / "masks" / "00003.png").rename(p / "masks" / "00003.jpg"), {}, "and PNG files in .*masks"),
        (lambda p: (p / "masks" / "00003.png").write_bytes(b"bad"), {}, r"(?s)1 of 24 files that cannot be read.*00003\.png"),
        (lambda p: None, {"num_classes": 4}, "expected classes from 0 to 3 for data.num_classes=4, .* got [45]: .*masks"),
        (
            lambda p: Image.new("L", (9, 16)).save(p / "masks" / "00003.png"),
            {},
            r"expected a mask of 16 × 16 pixels as .*00003\.png, got 9 × 16: .*masks/00003\.png",
        ),
        (lambda p: None, {"class_names": ["a", "b"]}, "class_names must be a sequence of 6, got"),
    ],
)
def test_what_is_wrong_with_masks_is_said(pairs, change, options, message):
    change(pairs)
    with pytest.raises(ValueError, match=message):
        read(pairs, **options)


def change_masks(root, change) -> None:
    for path in (root / "masks").glob("*.png"):
        labels = np.array(Image.open(path))
        Image.fromarray(change(labels)).save(path)


def test_a_foreground_of_255_is_no_class(pairs):
    change_masks(pairs, lambda labels: np.where(labels > 0, 255, 0).astype(np.uint8))
    with pytest.raises(ValueError, match=r"two classes or more .* no pixel of class 1 .* the values \[0, 255\]"):
        folder_of(pairs, num_classes=2)
    folder_of(pairs, num_classes=2, skip_broken=None)  # reads no file in advance


def test_a_class_that_no_training_mask_holds_is_named(pairs):
    change_masks(pairs, lambda labels: np.minimum(labels, 1))
    with pytest.warns(UserWarning, match="no pixel of class tree"):
        folder_of(pairs, num_classes=3, class_names=["ground", "house", "tree"])
