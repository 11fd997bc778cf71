"""Accuracy by rotation angle."""

import numpy as np
import pytest
import torch

from escnn_attn import SteerableTransformer
from escnn_attn.analysis.rotation import ANGLES, accuracy_by_angle
from escnn_attn.data import Digits, rotate_images, to_input


def test_accuracy_by_angle_is_that_of_rotated_images():
    torch.manual_seed(0)
    network = SteerableTransformer("SO2", channels=2, max_frequency=1, depth=1)
    images, labels = (part[:32] for part in Digits().upright_test_images())
    found = accuracy_by_angle(network, images, labels)
    logits = network.eval()(to_input(np.rot90(images, 1, (1, 2)).copy()))
    assert found["accuracy_by_angle"][ANGLES.index(90)] == pytest.approx((logits.argmax(1).numpy() == labels).mean())
    upright = network(to_input(images)).argmax(1)
    turned = network(to_input(rotate_images(images, np.full(32, 45)))).argmax(1)
    assert found["unchanged_by_angle"][ANGLES.index(45)] == pytest.approx((turned == upright).double().mean().item())
    assert found["unchanged_by_angle"][0] == 1
    changes = dict(zip(found["angles"], found["change_by_angle"], strict=True))
    assert len(changes) == 24
    quarter, other = ([change for angle, change in changes.items() if (angle % 90 == 0) == right] for right in (True, False))
    assert max(quarter) < 1e-5 < min(other)


def test_rotation_at_a_higher_resolution_is_a_rotation_with_smaller_errors():
    images, _ = Digits().upright_test_images()
    for resolution in (1, 8):
        quarter = rotate_images(images[:8], np.full(8, 90), resolution).astype(int)
        upright = rotate_images(images[:8], np.zeros(8), resolution)
        assert np.abs(quarter - np.rot90(upright, 1, (1, 2))).max() <= 2 * (resolution > 1)
    back = {}
    for resolution in (1, 8):
        there = rotate_images(images[:8], np.full(8, 45), resolution)
        back[resolution] = np.abs(
            rotate_images(there, np.full(8, -45), resolution)[:, 4:-4, 4:-4] - images[:8, 4:-4, 4:-4].astype(int)
        ).mean()
    assert back[8] < back[1]


def test_networks_in_double_precision_take_images_of_theirs():
    network = SteerableTransformer("C4", channels=2, depth=1).double()
    images, labels = (part[:4] for part in Digits().upright_test_images())
    assert len(accuracy_by_angle(network, images, labels)["accuracy_by_angle"]) == 24
