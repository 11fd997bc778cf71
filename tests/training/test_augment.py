"""Deformed copies of images."""

import pytest
import torch
from torch import nn

from escnn_attn.training import RandomDeformation, TurnedAverage


def test_affine_deformation_is_what_it_says():
    """Quarter turns and whole shifts need no interpolation; the same draw moves every pixel of an image alike."""
    images = torch.rand(3, 1, 9, 9)
    assert torch.equal(RandomDeformation(p=0.0, degrees=180)(images), images)
    torch.testing.assert_close(RandomDeformation()(images), images, atol=1e-5, rtol=0)
    draws = iter([torch.tensor([[1.0] * 3, [0.5] * 3, [0.5] * 3, [1.0] * 3]), torch.zeros(3)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_, **__: next(draws))
        moved = RandomDeformation(degrees=90, shift=1.0)(images)
    found = min(
        (moved - candidate).abs().max().item()
        for turn in (1, -1)
        for shift in (1, -1)
        for axis in (-1, -2)
        for candidate in [_shifted(torch.rot90(images, turn, (-2, -1)), shift, axis)]
    )
    assert found < 1e-4
    with pytest.raises(ValueError, match=r"a scale in \[0, 1\)"):
        RandomDeformation(scale=1.0)


def test_elastic_deformation_moves_the_pixels_at_its_handles_as_drawn(monkeypatch):
    """Handles that all move alike shift the image; one that moves alone bends it there, and not at the far corner."""
    images = torch.rand(2, 1, 9, 9)
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.ones(shape))
    moved = RandomDeformation(elastic=1.0)(images)
    torch.testing.assert_close(moved[:, :, :-1, :-1], images[:, :, 1:, 1:], atol=1e-5, rtol=0)
    corner = torch.zeros(2, 2, 5, 5)
    corner[:, :, 0, 0] = 2.0
    monkeypatch.setattr(torch, "randn", lambda *_, **__: corner)
    moved = RandomDeformation(elastic=1.0)(images)
    torch.testing.assert_close(moved[:, :, 0, 0], images[:, :, 2, 2], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[:, :, 5:, 5:], images[:, :, 5:, 5:], atol=1e-4, rtol=0)


def test_reflections_and_turns_of_images_that_are_not_square():
    """A reflection is exact; a half turn too; a quarter turn keeps lengths in pixels along both axes."""
    images = torch.rand(3, 1, 5, 9)
    torch.testing.assert_close(RandomDeformation(flip=1.0)(images), images.flip(-1), atol=1e-5, rtol=0)
    some = RandomDeformation(flip=0.5)(images[:1].expand(200, -1, -1, -1))
    assert 0.35 < ((some - images[:1]).abs().amax((1, 2, 3)) < 1e-5).float().mean() < 0.65
    with pytest.MonkeyPatch.context() as patch:
        _draw(patch, quarter_turns=1)
        turned = RandomDeformation(degrees=90)(images)
    candidates = [torch.rot90(images[..., 2:7], turn, (-2, -1)) for turn in (1, -1)]
    assert min((turned[..., 2:7] - candidate).abs().max() for candidate in candidates) < 1e-4


def test_masks_are_deformed_as_their_images():
    images, both = torch.rand(4, 1, 9, 9), RandomDeformation(degrees=90, p=0.5)
    masks = (images[:, 0] > 0.5).long()
    with pytest.MonkeyPatch.context() as patch:
        _draw(patch, quarter_turns=1, chosen=[0.0, 0.0, 1.0, 1.0])
        turned, labels = both.with_masks(images, masks, outside=255)
    assert torch.equal(labels, (turned[:, 0] > 0.5).long())
    assert torch.equal(turned[2:], images[2:])
    assert not torch.equal(turned[:2], images[:2])
    corners = RandomDeformation(shift=3.0).with_masks(images, masks, outside=255)[1]
    assert set(corners.unique().tolist()) == {0, 1, 255}


def _draw(patch, quarter_turns, chosen=(0.0, 0.0, 0.0)):
    """The draws of `RandomDeformation(degrees=90)`: turns, and which images are deformed."""
    placed = torch.tensor([[(1.0 + quarter_turns) / 2], [0.5], [0.5], [0.5]]).expand(-1, len(chosen))
    draws = iter([placed, torch.tensor(chosen)])
    patch.setattr(torch, "rand", lambda *_, **__: next(draws))


def _shifted(images, shift, axis):
    out = torch.zeros_like(images)
    size = images.shape[axis]
    a, b = max(0, shift), max(0, -shift)
    out.narrow(axis, a, size - 1).copy_(images.narrow(axis, b, size - 1))
    return out


class Corner(nn.Module):
    """Logits that are the sums over three strips of an image, which turn with it."""

    def forward(self, images):
        return images[:, 0, :, :9].sum(1).unflatten(1, (3, 3)).sum(2)


def test_probabilities_are_averaged_over_turned_copies():
    images = torch.rand(2, 1, 9, 9)
    torch.testing.assert_close(TurnedAverage(Corner(), 1)(images), Corner()(images).log_softmax(1))
    turned = torch.rot90(images, 1, (-2, -1))
    found = TurnedAverage(Corner(), 2)
    angles = [found.classifier(images), found(images)]
    assert not torch.allclose(angles[1], angles[0].log_softmax(1), atol=1e-3)
    blank = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))  # the same for all quarter turns
    torch.testing.assert_close(TurnedAverage(blank, 4)(turned), TurnedAverage(blank, 4)(images), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="turns must be at least 1, got 0"):
        TurnedAverage(blank, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_of_a_training_does_not_move_the_pixels(dtype):
    images = torch.rand(1, 1, 64, 64)
    for turned in (RandomDeformation(degrees=180, p=1.0), TurnedAverage(nn.Flatten(), turns=3)):
        torch.manual_seed(0)
        expected = turned(images)
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype):
            assert torch.equal(turned(images), expected)
