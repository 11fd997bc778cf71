"""Images of any size as network input: the center, mirror images, every kind of file, and damaged ones."""

import numpy as np
import pytest
import torch
from PIL import Image

from escnn_attn.data import ImagePreparation
from escnn_attn.data.preparation import read_image, read_labels, unreadable

#: (w, h) of images and (h, w) of inputs, of odd and even sides
SIZES = [((40, 30), (16, 16)), ((31, 53), (16, 17)), ((7, 12), (29, 33)), ((64, 64), (32, 32)), ((65, 64), (32, 33))]


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def bump(width: int, height: int, ratio: float) -> Image.Image:
    """A bright disc about the center, whose radius is a ratio of the shorter side."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2)
    return Image.fromarray((255 * np.exp(-((distance / (ratio * min(width, height))) ** 2))).astype(np.uint8))


@pytest.mark.parametrize(("size", "shape"), SIZES)
@pytest.mark.parametrize("fit", ["cover", "contain"])
def test_the_center_stays_the_center(size, shape, fit):
    """The centroid of a disc about the center is that of the input, to a hundredth of a pixel."""
    pixels = ImagePreparation(shape, 1, fit)(bump(*size, ratio=0.15))[0].double()
    for axis, side in enumerate(shape):
        positions = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
        assert abs((pixels.sum(1 - axis) * positions).sum() / pixels.sum()) < 0.01


@pytest.mark.parametrize(("size", "shape"), SIZES)
@pytest.mark.parametrize("fit", ["cover", "contain"])
def test_mirror_images_and_half_turns_commute_with_resizing(size, shape, fit):
    image, prepare = picture(*size), ImagePreparation(shape, 3, fit)
    labels = np.random.default_rng(1).integers(0, 5, size[::-1])
    if all(a % 2 or not b % 2 for a, b in zip(size, shape[::-1])):  # a pixel has no middle
        for axes in ((0,), (1,), (0, 1)):
            assert np.array_equal(prepare.mask(np.flip(labels, axes)), np.flip(prepare.mask(labels), axes))
    turned = prepare(image.transpose(Image.Transpose.ROTATE_180))
    torch.testing.assert_close(turned, prepare(image).flip(1, 2), atol=2 / 255, rtol=0)


def test_both_axes_are_scaled_alike():
    """Cut off or padded: a round disc stays round, and its radius says how it was scaled."""
    for fit, scale in (("cover", 32 / 50), ("contain", 32 / 80)):
        pixels = ImagePreparation(32, 1, fit)(bump(80, 50, ratio=0.2))[0]
        wide, high = (pixels[15:17].mean(0) > 0.5).sum(), (pixels[:, 15:17].mean(1) > 0.5).sum()
        assert abs(wide - high) <= 1
        assert wide == pytest.approx(2 * 0.2 * 50 * np.log(2) ** 0.5 * scale, abs=1.5)


def test_masks_match_images_and_come_back():
    """Where an image is bright the mask is 1, and a mask on the input returns to its place on the image."""
    for size, shape in SIZES:
        image = bump(*size, ratio=0.3)
        labels = (np.asarray(image) > 127).astype(np.int64)
        for fit in ("cover", "contain"):
            prepare = ImagePreparation(shape, 1, fit)
            mask, pixels = prepare.mask(labels), prepare(image)[0].numpy()
            inside = mask != 255
            assert inside.all() or fit == "contain"
            assert np.array_equal(
                mask[inside & (abs(pixels - 0.5) > 0.25)], (pixels > 0.5)[inside & (abs(pixels - 0.5) > 0.25)]
            )
            back = prepare.restore(np.where(inside, mask, 0), size)
            assert back.shape == labels.shape
            assert (back != 255).all() or fit == "cover"
            assert (back == labels)[back != 255].mean() > 0.85


def test_an_image_of_the_size_of_the_input_is_unchanged():
    image = picture(33, 29)
    pixels = ImagePreparation((29, 33))(image)
    assert torch.equal((255 * pixels).round().byte(), torch.from_numpy(np.array(image)).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_files_of_every_kind_are_read(tmp_path, mode):
    grey = np.repeat(np.linspace(0, 255, 16).astype(np.uint8)[None], 12, 0)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    for channels in (1, 3):
        pixels = ImagePreparation((12, 16), channels)(read_image(path))
        assert pixels.shape == (channels, 12, 16)
        # a picture of black and white is dithered
        assert (pixels - torch.from_numpy(grey / 255).float()).abs().mean() < (0.4 if mode == "1" else 0.02)


def test_photographs_are_turned_upright_and_transparent_pixels_are_black(tmp_path):
    image = picture(20, 10)
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90°
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").size == (10, 20)
    Image.new("RGBA", (4, 4), (200, 100, 50, 0)).save(tmp_path / "clear.png")
    assert np.asarray(read_image(tmp_path / "clear.png")).max() == 0


def test_every_damaged_file_is_found(tmp_path):
    """Cut off anywhere, empty, text; JPEG and PNG."""
    for kind in ("png", "jpg"):
        picture(64, 48).save(tmp_path / f"whole.{kind}")
        content = (tmp_path / f"whole.{kind}").read_bytes()
        for part in (0, 10, 40, len(content) // 2, len(content) - 40):
            (tmp_path / f"cut_{part}.{kind}").write_bytes(content[:part])
    (tmp_path / "text.png").write_text("no image")
    found = unreadable(sorted(tmp_path.iterdir()))
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in found} == {"whole.png", "whole.jpg"}
    for path in found:
        with pytest.raises(ValueError, match=rf"expected an image, got the unreadable .*{path.name}"):
            read_image(path)


def test_masks_are_class_indices_with_or_without_palette(tmp_path):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    palette = Image.fromarray(labels)
    palette.putpalette(bytes(range(256)) * 3)
    palette.save(tmp_path / "palette.png")
    for name in ("grey", "palette"):
        assert np.array_equal(read_labels(tmp_path / f"{name}.png"), labels)
    picture(4, 3).save(tmp_path / "color.png")
    with pytest.raises(ValueError, match=r"expected a mask of class indices.*color\.png"):
        read_labels(tmp_path / "color.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 2, got 0"),
        ({"image_size": [64]}, "image_size must be a sequence of 2"),
        ({"image_size": "64"}, "image_size must be"),
        ({"channels": 4}, "expected channels=1 for grey images or channels=3 for RGB, got 4"),
        ({"fit": "stretch"}, 'expected fit="cover" or fit="contain", got \'stretch\''),
    ],
)
def test_values_that_are_not_allowed_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ImagePreparation(**arguments)
