"""The simulation of charged particles: what physics and the method of integration promise, measured."""

import numpy as np
import pytest

from escnn_attn.data import particles
from escnn_attn.data.particles import ParticleClouds, SimulationConfig, energy, energy_drift, random_orthogonal, simulate

FEW = {"num_train": 7, "num_validation": 3, "num_test": 5}
PHYSICS = {key: getattr(SimulationConfig, key) for key in ("time", "num_steps", "softening")}


def start(rng, clouds=11, count=5):
    """Positions, velocities and charges, drawn as the simulation draws them."""
    shape = (clouds, count, 2)
    return rng.standard_normal(shape), 0.5 * rng.standard_normal(shape), rng.choice([-1.0, 1.0], shape[:2])


def naive_acceleration(x, q, softening):
    a = np.zeros_like(x)
    for i in range(len(q)):
        for j in range(len(q)):
            if i != j:
                r = x[i] - x[j]
                a[i] += q[i] * q[j] * r / (r @ r + softening**2) ** 1.5
    return a


def naive_simulation(x, v, q, time, steps, softening):
    h = time / steps
    for _ in range(steps):
        a = naive_acceleration(x, q, softening)
        x = x + h * v + h**2 / 2 * a
        v = v + h / 2 * (a + naive_acceleration(x, q, softening))
    return x, v


def test_simulation_is_that_of_plain_loops(rng):
    x, v, q = start(rng, clouds=3, count=7)
    xs, vs = simulate(x, v, q, time=1.3, num_steps=11, softening=0.3)
    assert xs.shape == vs.shape == (12, 3, 7, 2)
    np.testing.assert_array_equal(xs[0], x)
    for cloud in range(3):
        expected = naive_simulation(x[cloud], v[cloud], q[cloud], 1.3, 11, 0.3)
        np.testing.assert_allclose(xs[-1, cloud], expected[0], rtol=1e-12)
        np.testing.assert_allclose(vs[-1, cloud], expected[1], rtol=1e-12)


def test_acceleration_is_the_negative_gradient_of_the_potential(rng):
    x, v, q = start(rng, clouds=1)
    difference = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-5
        up, down = (energy(x + sign * step, v, q, softening=0.5)[1] for sign in (1, -1))
        difference[index] = -(up - down)[0] / 2e-5
    np.testing.assert_allclose(naive_acceleration(x[0], q[0], 0.5), difference[0], rtol=1e-7)


def test_energy_drifts_by_less_than_a_thousandth_with_the_shipped_steps(shipped):
    simulation, sets = shipped
    for name in ("validation", "test"):
        clouds = sets[name]
        assert len(clouds.charges) == 2000
        drifts = []
        for i in range(0, 2000, 200):
            part = clouds.part(i, i + 200)
            xs, vs = simulation.trajectories(part)
            drifts.append(energy_drift(xs, vs, part.charges, softening=simulation.softening))
            np.testing.assert_array_equal(xs[-1] - xs[0], part.displacements)
        assert 1e-6 < np.max(drifts) < 1e-3


def test_coarse_steps_break_the_bound_on_the_drift_and_are_refused(shipped, tmp_path, monkeypatch):
    few = shipped[1]["test"].part(0, 200)
    xs, vs = simulate(few.positions, few.velocities, few.charges, **{**PHYSICS, "num_steps": 40})
    assert energy_drift(xs, vs, few.charges, softening=PHYSICS["softening"]).max() > 1e-3
    monkeypatch.setenv("ESCNN_ATTN_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"energy drift of at most 0.001, got .*: use more than 40 steps"):
        SimulationConfig(num_steps=40).clouds()
    assert not list(tmp_path.iterdir())


def test_the_method_is_of_second_order(rng):
    state = start(rng)

    def end(steps):
        return simulate(*state, time=1.0, num_steps=steps, softening=0.5)[0][-1]

    coarse, fine = (np.linalg.norm(end(steps) - end(1600)) for steps in (100, 200))
    assert coarse / fine == pytest.approx(4, rel=0.1)


def test_reversed_velocities_lead_back_to_the_start(rng):
    x, v, q = start(rng)
    xs, vs = simulate(x, v, q, **PHYSICS)
    back, _ = simulate(xs[-1], -vs[-1], q, **PHYSICS)
    np.testing.assert_allclose(back[-1], x, atol=1e-9)
    assert np.abs(xs[-1] - x).max() > 1


def test_rotations_reflections_shifts_and_boosts_of_the_start_are_those_of_the_way(rng):
    x, v, q = start(rng)
    turns, shifts, boosts = random_orthogonal(len(q), rng), rng.standard_normal((11, 1, 2)), rng.standard_normal((11, 1, 2))
    assert set(np.linalg.det(turns).round(9)) == {-1.0, 1.0}
    xs, vs = simulate(x, v, q, **PHYSICS)
    turned = [np.einsum("cij,...cpj->...cpi", turns, array) for array in (x, v, xs, vs)]
    moved, speeds = simulate(turned[0] + shifts, turned[1] + boosts, q, **PHYSICS)
    times = np.linspace(0, PHYSICS["time"], PHYSICS["num_steps"] + 1)[:, None, None, None]
    np.testing.assert_allclose(moved, turned[2] + shifts + boosts * times, atol=1e-9)
    np.testing.assert_allclose(speeds, turned[3] + boosts, atol=1e-9)


def test_momentum_is_conserved_and_exchanged(rng):
    _, vs = simulate(*start(rng), **PHYSICS)
    np.testing.assert_allclose(vs.sum(axis=2), np.broadcast_to(vs[0].sum(axis=1), (501, 11, 2)), atol=1e-12)
    assert np.abs(vs[-1] - vs[0]).mean() > 0.1


def test_like_charges_repel_unlike_attract_and_a_single_one_flies_straight(rng):
    x = np.array([[[-0.5, 0.0], [0.5, 0.0]]] * 3)
    xs, _ = simulate(x, 0 * x, np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]), time=0.5, num_steps=50, softening=0.5)
    ways = (xs[-1] - x)[:, 1, 0]
    assert ways[0] == ways[1] > 0.05
    assert ways[2] < -0.05
    x, v, q = start(rng, count=1)
    np.testing.assert_allclose(simulate(x, v, q, **PHYSICS)[0][-1], x + PHYSICS["time"] * v, rtol=1e-12)


def test_interactions_matter_and_chaos_does_not(shipped, rng):
    """Free flight is wrong by most of the way, a Taylor series by more; a small push grows a few times, not thousands."""
    simulation, sets = shipped
    few = sets["test"].part(0, 500)
    free = few.displacements - simulation.time * few.velocities
    assert np.linalg.norm(free, axis=-1).mean() > 0.6 * np.linalg.norm(few.displacements, axis=-1).mean()
    taylor = [
        naive_acceleration(x, q, simulation.softening) * simulation.time**2 / 2 for x, q in zip(few.positions, few.charges)
    ]
    assert np.square(free - taylor).mean() > np.square(free).mean()
    push = 1e-7 * rng.standard_normal(few.positions.shape)
    ends = simulation.trajectories(few._replace(positions=few.positions + push))[0][-1]
    grown = np.linalg.norm(ends - few.positions - few.displacements, axis=(1, 2)) / np.linalg.norm(push, axis=(1, 2))
    assert 1.5 < np.median(grown) < 3
    assert np.quantile(grown, 0.99) < 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((5, 2))}, r"expected positions \(clouds, particles, 2\), got \(5, 2\)"),
        ({"velocities": np.zeros((3, 4, 2))}, r"expected velocities \(3, 5, 2\) .* got \(3, 4, 2\)"),
        ({"charges": np.zeros((3, 5, 1))}, r"charges \(3, 5\) .* got .*\(3, 5, 1\)"),
        ({"time": 0.0}, "expected positive time, num_steps and softening, got 0.0, 500 and 0.5"),
        ({"num_steps": 0}, "got 2.0, 0 and 0.5"),
        ({"softening": -1.0}, "got 2.0, 500 and -1.0"),
    ],
)
def test_bad_arguments_say_what_was_expected(change, message):
    arguments = {"positions": np.zeros((3, 5, 2)), "velocities": np.zeros((3, 5, 2)), "charges": np.zeros((3, 5)), **PHYSICS}
    with pytest.raises(ValueError, match=message):
        simulate(**{**arguments, **change})


def test_a_simulation_without_particles_is_refused():
    with pytest.raises(ValueError, match=r"one particle and one cloud in each set, got SimulationConfig\(num_particles=0"):
        SimulationConfig(num_particles=0)


def test_each_simulation_is_cached_in_its_own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("ESCNN_ATTN_CACHE", str(tmp_path / "cache"))
    first, other = SimulationConfig(**FEW).clouds(), SimulationConfig(**FEW, seed=1).clouds()
    assert {name: clouds.positions.shape for name, clouds in first.items()} == {
        n.removeprefix("num_"): (c, 5, 2) for n, c in FEW.items()
    }
    assert len(list((tmp_path / "cache").iterdir())) == 2
    monkeypatch.setattr(particles, "simulate", pytest.fail)
    for simulation, made in ((SimulationConfig(**FEW), first), (SimulationConfig(**FEW, seed=1), other)):
        for name, clouds in simulation.clouds().items():
            for again, array in zip(clouds, made[name]):
                np.testing.assert_array_equal(again, array)
    assert not np.array_equal(first["test"].positions, other["test"].positions)
    monkeypatch.undo()
    monkeypatch.setenv("ESCNN_ATTN_CACHE", str(tmp_path / "cache"))
    long = [
        SimulationConfig(**FEW, seed=seed).clouds()["test"].positions for seed in (20240101, 20240102)
    ]  # alike to six digits
    assert not np.array_equal(*long)


def test_the_cached_file_is_whole_or_not_there(tmp_path, monkeypatch):
    def interrupted(path, **_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setenv("ESCNN_ATTN_CACHE", str(tmp_path))
    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SimulationConfig(**FEW).clouds()
    assert not list(tmp_path.iterdir())


def test_random_orthogonal_matrices_are_uniform_in_o2(rng):
    turns = random_orthogonal(4000, rng)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(2), turns.shape), atol=1e-12)
    determinants = np.linalg.det(turns)
    assert (determinants > 0).mean() == pytest.approx(0.5, abs=0.03)
    for sign in (-1, 1):  # the image of the x axis is uniform on the circle
        angles = np.arctan2(turns[:, 1, 0], turns[:, 0, 0])[determinants * sign > 0]
        assert np.abs([np.exp(1j * k * angles).mean() for k in (1, 2, 3)]).max() < 0.06


def test_transformed_clouds_are_rotated_then_shifted(rng):
    x, v, q = start(rng, clouds=1)
    quarter = np.array([[[0.0, -1.0], [1.0, 0.0]]])
    moved = ParticleClouds(x, v, q, 2 * x).transformed(quarter, np.array([[3.0, 0.0]]))
    np.testing.assert_allclose(moved.positions, np.stack([3 - x[..., 1], x[..., 0]], axis=-1))
    np.testing.assert_allclose(moved.velocities, np.stack([-v[..., 1], v[..., 0]], axis=-1))
    np.testing.assert_allclose(moved.displacements, 2 * np.stack([-x[..., 1], x[..., 0]], axis=-1))
