"""Charged particles in the plane: their simulation, their energy, and seeded data sets of clouds."""

from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np

from escnn_attn.data._files import cached_arrays

#: standard deviations of the initial coordinates and velocity components
SPREAD, SPEED = 1.0, 0.5
#: largest accepted energy drift of a cloud (see `energy_drift`)
DRIFT = 1e-3


def simulate(
    positions: np.ndarray, velocities: np.ndarray, charges: np.ndarray, *, time: float, num_steps: int, softening: float
) -> tuple[np.ndarray, np.ndarray]:
    r"""Integrates the motion of charged particles of unit mass by the velocity-Verlet method, in float64.

    $\ddot x_i = \sum_{j \ne i} q_i q_j \, (x_i - x_j) / (\lvert x_i - x_j\rvert^2 + \varepsilon^2)^{3/2}$: like charges
    repel. The method is of second order in the length of a step, and symmetric in time (Hairer, Lubich & Wanner,
    Geometric numerical integration, 2003). All quantities are dimensionless.

    Args:
        positions: (clouds, particles, 2), as (x, y).
        velocities: (clouds, particles, 2).
        charges: (clouds, particles).
        time: from start to end.
        num_steps: number of steps of equal length.
        softening: the length ε of the force.

    Returns:
        positions and velocities (num_steps + 1, clouds, particles, 2), the initial state first.

    Raises:
        ValueError: if shapes do not match, or time, num_steps or softening is not positive.

    Examples:
        >>> start = np.array([[[0.0, 0.0], [1.0, 0.0]]])  # at rest, of opposite charges
        >>> positions, _ = simulate(start, 0 * start, np.array([[1.0, -1.0]]), time=0.5, num_steps=10, softening=0.5)
        >>> positions.shape
        (11, 1, 2, 2)
        >>> positions[-1].round(2).tolist()
        [[[0.09, 0.0], [0.91, 0.0]]]
    """
    _require_clouds(positions, velocities, charges)
    if not (time > 0 and num_steps >= 1 and softening > 0):
        raise ValueError(f"expected positive time, num_steps and softening, got {time}, {num_steps} and {softening}")
    # components first and clouds last: the innermost loops of numpy run over the clouds
    x, v, q = (np.ascontiguousarray(array.T, np.float64) for array in (positions, velocities, charges))
    xs, vs = _verlet(x, v, q[:, None] * q, time / num_steps, num_steps, softening)
    return xs.transpose(0, 3, 2, 1), vs.transpose(0, 3, 2, 1)


def _verlet(
    x: np.ndarray, v: np.ndarray, products: np.ndarray, step: float, num_steps: int, softening: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities (num_steps + 1, 2, particles, clouds), for charge products (particles, particles, clouds)."""
    acceleration = _acceleration(x, products, softening)
    xs, vs = [x], [v]
    for _ in range(num_steps):
        half = vs[-1] + step / 2 * acceleration
        xs.append(xs[-1] + step * half)
        acceleration = _acceleration(xs[-1], products, softening)
        vs.append(half + step / 2 * acceleration)
    return np.stack(xs), np.stack(vs)


def _acceleration(x: np.ndarray, products: np.ndarray, softening: float) -> np.ndarray:
    """Accelerations (2, particles, clouds) at positions of that shape, for charge products (particles, particles, clouds)."""
    difference = x[:, :, None] - x[:, None]
    squared = (difference**2).sum(axis=0) + softening**2
    return (products / (squared * np.sqrt(squared)) * difference).sum(axis=2)


def energy(
    positions: np.ndarray, velocities: np.ndarray, charges: np.ndarray, *, softening: float
) -> tuple[np.ndarray, np.ndarray]:
    r"""Kinetic and potential energy: $\frac12 \sum_i \lvert v_i\rvert^2$ and $\sum_{i<j} q_i q_j / \sqrt{\lvert x_i - x_j\rvert^2 + \varepsilon^2}$.

    Args:
        positions: (..., particles, 2).
        velocities: (..., particles, 2).
        charges: (..., particles); leading axes broadcast.
        softening: the length ε of the simulation.

    Returns:
        both energies (...).

    Examples:
        >>> kinetic, potential = energy(np.array([[0, 0], [3, 0]]), np.array([[0, 0], [0, 2]]), np.array([1, -1]), softening=4)
        >>> float(kinetic), float(potential)
        (2.0, -0.2)
    """
    i, j = np.triu_indices(positions.shape[-2], 1)
    squared = np.square(positions[..., i, :] - positions[..., j, :]).sum(axis=-1) + softening**2
    potential = (charges[..., i] * charges[..., j] / np.sqrt(squared)).sum(axis=-1)
    return np.square(velocities).sum(axis=(-2, -1)) / 2, potential


def energy_drift(positions: np.ndarray, velocities: np.ndarray, charges: np.ndarray, *, softening: float) -> np.ndarray:
    r"""Largest $\lvert E(t) - E(0)\rvert / (T(0) + \lvert U(0)\rvert)$ along each trajectory, $E = T + U$.

    Args:
        positions: (num_steps + 1, clouds, particles, 2), as `simulate` returns them.
        velocities: of the same shape.
        charges: (clouds, particles).
        softening: the length ε of the simulation.

    Returns:
        drifts (clouds,).
    """
    kinetic, potential = energy(positions, velocities, charges, softening=softening)
    total = kinetic + potential
    return np.abs(total - total[0]).max(axis=0) / (kinetic[0] + np.abs(potential[0]))


class ParticleClouds(NamedTuple):
    """Initial states of clouds of particles and the displacements until the end, all float64.

    Attributes:
        positions: (clouds, particles, 2).
        velocities: (clouds, particles, 2).
        charges: (clouds, particles), 1 or −1.
        displacements: (clouds, particles, 2), from start to end.
    """

    positions: np.ndarray
    velocities: np.ndarray
    charges: np.ndarray
    displacements: np.ndarray

    def part(self, start: int, stop: int) -> "ParticleClouds":
        """Selects the clouds `start` to `stop - 1`."""
        return ParticleClouds(*(array[start:stop] for array in self))

    def transformed(self, matrices: np.ndarray, shifts: np.ndarray) -> "ParticleClouds":
        """Applies an orthogonal matrix per cloud about the origin, then shifts the positions.

        Args:
            matrices: (clouds, 2, 2).
            shifts: (clouds, 2).
        """
        vectors = self.positions, self.velocities, self.displacements
        x, v, d = (np.einsum("cij,cpj->cpi", matrices, array) for array in vectors)
        return ParticleClouds(x + shifts[:, None], v, self.charges, d)


def random_orthogonal(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws matrices (count, 2, 2) uniformly from O(2): rotations, half of them after a reflection in the x axis."""
    angles, signs = rng.uniform(0, 2 * np.pi, count), rng.choice([-1.0, 1.0], count)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([cos, -sin * signs, sin, cos * signs], axis=-1).reshape(count, 2, 2)


@dataclass(frozen=True)
class SimulationConfig:
    """Configuration of simulated clouds of charged particles: training, validation and test sets from separate random streams.

    Initial coordinates and velocities are Gaussian with standard deviations 1 and 0.5, charges 1 or −1.

    Attributes:
        num_particles: particles per cloud.
        num_train: number of training clouds.
        num_validation: number of validation clouds.
        num_test: number of test clouds.
        time: from start to end.
        num_steps: number of integration steps.
        softening: the length ε of the force.
        seed: of all draws.
    """

    num_particles: int = 5
    num_train: int = 10_000
    num_validation: int = 2_000
    num_test: int = 2_000
    time: float = 2.0
    num_steps: int = 500
    softening: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_particles, *self._sizes().values()) < 1:
            raise ValueError(f"expected at least one particle and one cloud in each set, got {self}")

    def clouds(self) -> dict[str, ParticleClouds]:
        """Simulates the sets `"train"`, `"validation"` and `"test"`, or loads them from the cache.

        Raises:
            ValueError: if the energy of a cloud drifts by more than 1e-3 (see `energy_drift`): the steps are too long.
        """
        name = "nbody-" + "-".join(str(value) for value in (*astuple(self), SPREAD, SPEED))
        stored = cached_arrays(name, self._make)
        return {
            part: ParticleClouds(*(stored[f"{part}_{field}"] for field in ParticleClouds._fields)) for part in self._sizes()
        }

    def _sizes(self) -> dict[str, int]:
        return {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}

    def _make(self) -> dict[str, np.ndarray]:
        arrays = {}
        for stream, (name, count) in enumerate(self._sizes().items()):
            clouds = self._draw(count, np.random.default_rng([self.seed, stream]))
            # in chunks: their trajectories fit the processor caches
            ends = [self._displacements(clouds.part(i, i + 200)) for i in range(0, count, 200)]
            clouds = clouds._replace(displacements=np.concatenate(ends))
            arrays |= {f"{name}_{key}": array for key, array in clouds._asdict().items()}
        return arrays

    def _draw(self, count: int, rng: np.random.Generator) -> ParticleClouds:
        shape = (count, self.num_particles, 2)
        positions, velocities = SPREAD * rng.standard_normal(shape), SPEED * rng.standard_normal(shape)
        return ParticleClouds(positions, velocities, rng.choice([-1.0, 1.0], shape[:2]), np.zeros(shape))

    def _displacements(self, clouds: ParticleClouds) -> np.ndarray:
        positions, velocities = self.trajectories(clouds)
        drift = energy_drift(positions, velocities, clouds.charges, softening=self.softening).max()
        if not drift <= DRIFT:
            raise ValueError(
                f"expected an energy drift of at most {DRIFT:g}, got {drift:.1e}: use more than {self.num_steps} steps"
            )
        return positions[-1] - positions[0]

    def trajectories(self, clouds: ParticleClouds) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities (num_steps + 1, clouds, particles, 2) of clouds over time (see `simulate`)."""
        start = clouds.positions, clouds.velocities, clouds.charges
        return simulate(*start, time=self.time, num_steps=self.num_steps, softening=self.softening)


def _require_clouds(positions: np.ndarray, velocities: np.ndarray, charges: np.ndarray) -> None:
    if positions.ndim != 3 or positions.shape[2] != 2:
        raise ValueError(f"expected positions (clouds, particles, 2), got {positions.shape}")
    if velocities.shape != positions.shape or charges.shape != positions.shape[:2]:
        raise ValueError(
            f"expected velocities {positions.shape} and charges {positions.shape[:2]} for positions {positions.shape}, "
            f"got {velocities.shape} and {charges.shape}"
        )
