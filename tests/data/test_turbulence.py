"""The solver of the vorticity equation: what physics, symmetry and the method of integration promise, measured."""

import numpy as np
import pytest

from escnn_attn.data import budgets, energy_spectrum, evolve, random_vorticity, velocity_of, vorticity_of

N = 24
SHORT = {"viscosity": 0.02, "time": 0.5, "num_steps": 12}


@pytest.fixture
def start(rng):
    return random_vorticity(3, N, 3.0, rng)


def positions(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x and y (n, n) of pixel centers about the center of the square, y up."""
    line = 2 * np.pi / size * (np.arange(size) - (size - 1) / 2)
    return np.broadcast_to(line, (size, size)), np.broadcast_to(-line[:, None], (size, size))


def naive_tendency(vorticity: np.ndarray, viscosity: float) -> np.ndarray:
    """−u·∇ω + νΔω of one flow by plain sums over waves, two-thirds rule included."""
    size = len(vorticity)
    x, y = positions(size)
    waves = [(a, b) for a in range(-size // 2 + 1, size // 2) for b in range(-size // 2 + 1, size // 2)]
    kept = {(a, b): np.exp(1j * (a * x + b * y)) for a, b in waves if 0 < a * a + b * b < size**2 / 9}

    def coefficients(field):
        return {wave: (np.conj(shape) * field).mean() for wave, shape in kept.items()}

    def total(values):
        return sum(value * kept[wave] for wave, value in values.items()).real

    c = coefficients(vorticity)
    u, v = (
        total({(a, b): z * f(a, b) / (a * a + b * b) for (a, b), z in c.items()})
        for f in (lambda a, b: 1j * b, lambda a, b: -1j * a)
    )
    slope_x, slope_y = (total({(a, b): 1j * f(a, b) * z for (a, b), z in c.items()}) for f in (lambda a, b: a, lambda a, b: b))
    advection = total(coefficients(-u * slope_x - v * slope_y))
    return advection - viscosity * total({(a, b): (a * a + b * b) * z for (a, b), z in c.items()})


def test_the_rate_of_change_is_that_of_plain_sums(start):
    flow = evolve(start[:1], viscosity=1e-9, time=1e-9, num_steps=1)  # within the kept waves
    step = 1e-4
    rate = (evolve(flow, viscosity=0.05, time=step, num_steps=1) - flow)[0] / step
    expected = naive_tendency(flow[0], 0.05)
    assert np.linalg.norm(rate - expected) < 1e-3 * np.linalg.norm(expected)
    assert np.linalg.norm(naive_tendency(flow[0], 0.0)) > 0.5 * np.linalg.norm(expected)  # advection counts


def test_energy_and_enstrophy_are_lost_by_viscosity_alone(start):
    flows, step, nu = [evolve(start, **SHORT)], 0.01, 0.02
    for _ in range(2):
        flows.append(evolve(flows[-1], viscosity=nu, time=step, num_steps=4))
    energy, enstrophy, palinstrophy = (np.array(values) for values in zip(*map(budgets, flows)))
    np.testing.assert_allclose((energy[2] - energy[0]) / (2 * step), -2 * nu * enstrophy[1], rtol=1e-4)
    np.testing.assert_allclose((enstrophy[2] - enstrophy[0]) / (2 * step), -2 * nu * palinstrophy[1], rtol=1e-3)
    still = evolve(flows[0], viscosity=1e-12, time=1.0, num_steps=60)
    for before, after in zip(budgets(flows[0])[:2], budgets(still)[:2]):
        np.testing.assert_allclose(after, before, rtol=1e-5)
    assert np.linalg.norm(still - flows[0]) > 0.5 * np.linalg.norm(flows[0])


@pytest.mark.parametrize("k", [1, 3])
def test_vortices_of_taylor_and_green_decay_by_their_formula(k):
    x, y = positions(N)
    vortices = 2 * k * np.cos(k * x) * np.cos(k * y)
    np.testing.assert_allclose(
        velocity_of(vortices), [-np.cos(k * x) * np.sin(k * y), np.sin(k * x) * np.cos(k * y)], atol=1e-12
    )
    end = evolve(vortices[None], viscosity=0.03, time=1.7, num_steps=20)[0]
    np.testing.assert_allclose(end, np.exp(-2 * 0.03 * k**2 * 1.7) * vortices, atol=1e-12)


@pytest.mark.parametrize(
    ("move", "sign"),
    [
        (lambda f: np.rot90(f, 1, (-2, -1)), 1),
        (lambda f: np.flip(f, -1), -1),
        (lambda f: np.flip(f, -2), -1),
        (lambda f: np.roll(f, (5, -3), (-2, -1)), 1),
    ],
)
def test_turned_mirrored_and_shifted_starts_end_alike(start, move, sign):
    end = evolve(start, **SHORT)
    moved = evolve(sign * move(start), **SHORT)
    np.testing.assert_allclose(moved, sign * move(end), atol=1e-11)
    assert np.abs(evolve(-sign * move(start), **SHORT) + sign * move(end)).max() > 0.1  # the other sign is another flow


def test_the_method_is_of_fourth_order(start):
    ends = {steps: evolve(start, viscosity=0.02, time=0.8, num_steps=steps) for steps in (12, 24, 192)}
    coarse, fine = (np.linalg.norm(ends[steps] - ends[192]) for steps in (12, 24))
    assert coarse / fine == pytest.approx(16, rel=0.15)


def test_velocity_is_free_of_divergence_and_has_its_vorticity(start):
    u = velocity_of(start)
    np.testing.assert_allclose(vorticity_of(u), start, atol=1e-10)
    across = np.stack([-u[:, 1], u[:, 0]], axis=1)  # a quarter turn makes divergence of vorticity
    assert np.abs(vorticity_of(across)).max() < 1e-10
    x, y = positions(N)
    strain = np.stack([np.sin(x) * np.cos(y), -np.cos(x) * np.sin(y)])
    np.testing.assert_allclose(vorticity_of(strain), 2 * np.sin(x) * np.sin(y), atol=1e-12)


def test_spectra_add_up_to_the_energy_of_isotropic_starts(rng):
    flows = random_vorticity(50, 32, 4.0, rng)
    spectrum = energy_spectrum(velocity_of(flows))
    assert spectrum.shape == (50, 16)
    np.testing.assert_allclose(spectrum.sum(axis=-1), budgets(flows)[0])
    np.testing.assert_allclose(budgets(flows)[0], 0.5)
    assert 3 <= spectrum.mean(axis=0).argmax() <= 5
    x, y = (np.square(velocity_of(flows)[:, i]).mean() for i in range(2))
    assert x == pytest.approx(y, rel=0.1)


def test_what_cannot_be_integrated_is_refused(start):
    with pytest.raises(ValueError, match=r"expected a Courant number of at most 1, got .*: use more steps"):
        evolve(start, viscosity=0.02, time=2.0, num_steps=2)
    with pytest.raises(ValueError, match=r"expected vorticity \(flows, n, n\), got \(24, 24\)"):
        evolve(start[0], **SHORT)
    with pytest.raises(ValueError, match="expected positive viscosity, time and num_steps, got 0, 1 and 5"):
        evolve(start, viscosity=0, time=1, num_steps=5)
