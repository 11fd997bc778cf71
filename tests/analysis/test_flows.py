"""Errors of predictions of flows, and their figures."""

import numpy as np
import pytest
import torch
from PIL import Image

from escnn_attn.analysis import (
    animate_vorticity,
    flow_errors,
    plot_energy_spectra,
    plot_rollout_errors,
    relative_errors,
    rollout,
    turning_error,
)
from escnn_attn.data import random_vorticity, velocity_of


@pytest.fixture
def flows(rng):
    """Velocities (5, 3, 2, 16, 16) that fade by a tenth in each interval."""
    start = torch.from_numpy(velocity_of(random_vorticity(5, 16, 3.0, rng))).float()
    return torch.stack([start * 0.9**step for step in range(3)], dim=1)


def test_errors_are_those_of_each_sample():
    truth = torch.randn(3, 2, 7, 5)
    scales = torch.tensor([0.5, 1.0, 2.0])[:, None, None, None]
    torch.testing.assert_close(relative_errors(truth * scales, truth), torch.tensor([0.5, 0.0, 1.0]))


def test_a_rollout_feeds_predictions_back(flows):
    calls = []
    predicted = rollout(lambda u: calls.append(len(u)) or 0.9 * u, flows[:, 0], 2, batch_size=2)
    torch.testing.assert_close(predicted, flows)
    assert calls == [2, 2, 1] * 2


def test_one_step_starts_from_the_truth_and_a_rollout_from_the_prediction(flows):
    errors = flow_errors(lambda u: 0.45 * u, flows)
    assert errors["one_step"] == pytest.approx(0.5, rel=1e-5)
    assert errors["rollout"] == pytest.approx([0.5, 0.75], rel=1e-5)
    assert flow_errors(torch.clone, flows)["one_step"] == pytest.approx(1 / 0.9 - 1, rel=1e-4)


def test_the_turning_error_is_zero_of_equivariant_predictions_alone(flows):
    assert turning_error(lambda u: 0.9 * u.flip(-2, -1), flows[:, 0]) == 0  # half a turn of places alone
    assert turning_error(lambda u: u.roll(1, -1), flows[:, 0]) > 0.1
    # a quarter turn of each velocity commutes with turns, and changes its sign under the four of seven that mirror
    error = turning_error(lambda u: torch.stack([-u[:, 1], u[:, 0]], dim=1), flows[:, 0])
    assert error == pytest.approx(2 * 4 / 7, rel=1e-5)


def test_figures_are_drawn_of_whole_files(flows, tmp_path):
    truth = flows.numpy()
    plot_energy_spectra(
        truth, {"half": truth / 2}, tmp_path / "new" / "spectra.png"
    )  # of one interval; ten are beyond the last
    plot_rollout_errors({"half": [0.5, 0.75]}, tmp_path / "errors.png")
    animate_vorticity({"simulation": truth[0], "half": truth[0] / 2}, tmp_path / "vorticity.gif")
    assert (tmp_path / "new" / "spectra.png").stat().st_size > 10_000
    assert (tmp_path / "errors.png").stat().st_size > 10_000
    with Image.open(tmp_path / "vorticity.gif") as animation:
        assert animation.n_frames == 3
        frame = np.asarray(animation.convert("RGB"), float)
        colors = []
        for index in range(3):
            animation.seek(index)
            colors.append(np.ptp(np.asarray(animation.convert("RGB"), float)[40:], axis=-1).mean())
    assert 1.1 < colors[0] / colors[1] < 1.3  # vortices fade, in the colors of the first frame
    assert 1.1 < colors[1] / colors[2] < 1.3
    left, right = frame[:, : frame.shape[1] // 2], frame[:, -(frame.shape[1] // 2) :]
    # both panels are colored, that of weaker vortices less
    assert np.ptp(left[40:], axis=-1).mean() > 1.5 * np.ptp(right[40:], axis=-1).mean() > 10
