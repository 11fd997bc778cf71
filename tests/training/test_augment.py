"""Random deformations of images."""

import pytest
import torch

from escnn_attn.training import RandomDeformation


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


def _shifted(images, shift, axis):
    out = torch.zeros_like(images)
    size = images.shape[axis]
    a, b = max(0, shift), max(0, -shift)
    out.narrow(axis, a, size - 1).copy_(images.narrow(axis, b, size - 1))
    return out
