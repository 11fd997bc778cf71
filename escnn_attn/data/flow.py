"""Data module of flows: a velocity in, the velocity an interval later out."""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from escnn_attn.arguments import require_flag
from escnn_attn.data._files import cached_arrays
from escnn_attn.data.base import DataModule
from escnn_attn.data.turbulence import evolve, random_vorticity, velocity_of, vorticity_of


@dataclass(frozen=True)
class TurbulenceConfig:
    """Configuration of simulated decaying turbulence: training, validation and test flows from separate random streams.

    A flow is a random vorticity on a periodic square of side 2π, with a root mean square velocity of 1, that evolved over
    `warmup` to vortices and filaments. Of its further way a frame per `interval` is kept.

    Attributes:
        size: pixels along each side.
        num_train: number of training flows.
        num_validation: number of validation flows.
        num_test: number of test flows.
        num_intervals: number of intervals of each flow.
        interval: time from frame to frame.
        warmup: number of intervals before the first frame.
        num_steps: number of integration steps per interval.
        viscosity: of the fluid.
        peak: wavenumber near which most of the energy of the random vorticity is.
        seed: of all draws.
    """

    size: int = 64
    num_train: int = 256
    num_validation: int = 16
    num_test: int = 32
    num_intervals: int = 10
    interval: float = 0.6
    warmup: int = 4
    num_steps: int = 24
    viscosity: float = 3e-3
    peak: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_intervals, *self._sizes().values()) < 1 or self.warmup < 0 or self.size < 4:
            raise ValueError(
                f"expected at least 4 pixels, one interval and one flow in each set, and no negative warmup, got {self}"
            )

    def trajectories(self) -> dict[str, np.ndarray]:
        """Vorticity (flows, num_intervals + 1, size, size), float32, of `"train"`, `"validation"` and `"test"`: simulated, or from the cache.

        Raises:
            ValueError: if the steps are too long (see `evolve`).
        """
        return cached_arrays("flow-" + "-".join(str(value) for value in astuple(self)), self._make)

    def _sizes(self) -> dict[str, int]:
        return {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}

    def _make(self) -> dict[str, np.ndarray]:
        arrays = {}
        for stream, (name, count) in enumerate(self._sizes().items()):
            start = random_vorticity(count, self.size, self.peak, np.random.default_rng([self.seed, stream]))
            # in chunks, which fit the processor caches
            arrays[name] = np.concatenate([self._simulate(start[i : i + 8]) for i in range(0, count, 8)])
        return arrays

    def _simulate(self, vorticity: np.ndarray) -> np.ndarray:
        frames = [vorticity]
        for _ in range(self.warmup + self.num_intervals):
            frames.append(evolve(frames[-1], viscosity=self.viscosity, time=self.interval, num_steps=self.num_steps))
        return np.stack(frames[self.warmup :], axis=1).astype(np.float32)


class Flow(DataModule):
    """Decaying turbulence on a periodic grid: the task is to predict the velocity after an interval from the velocity before.

    Samples are the intervals of the flows: fields (2, n, n) of components along x and y, with the rows along −y. The two test
    sets hold the same flows: `"test"` as simulated, `"turned"` after a random number of quarter turns of each, half of them
    mirrored too.

    Args:
        train_size: number of training flows, the first of the simulation.
        vorticity: whether the vorticity is a third channel of the input, in units of the wavenumber `peak`: a field of
            `field_type(…, pseudoscalars=1)`, which a reflection negates.
        simulation: configuration of the flows; None for the default.
        batch_size: training samples per batch and device.
        seed: of the order of training samples.
        num_workers: number of processes that load data.

    Raises:
        ValueError: if the simulation has fewer than `train_size` training flows.
    """

    test_sets = ("test", "turned")

    def __init__(
        self,
        train_size: int = 256,
        vorticity: bool = False,
        simulation: TurbulenceConfig | None = None,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.simulation = simulation or TurbulenceConfig()
        if not 1 <= train_size <= self.simulation.num_train:
            raise ValueError(f"expected 1 to {self.simulation.num_train:,} training flows, got {train_size}")
        self.train_size, self.vorticity = train_size, require_flag("vorticity", vorticity)

    def prepare_data(self) -> None:
        self.simulation.trajectories()

    def trajectories(self, *names: str) -> dict[str, Tensor]:
        """Velocities (flows, num_intervals + 1, 2, n, n) of the sets of these names, of all by default.

        Raises:
            ValueError: if there is no set of a name.
        """
        stored, known = self.simulation.trajectories(), ("train", "validation", *self.test_sets)
        if unknown := set(names) - set(known):
            raise ValueError(f"expected names of {known}, got {sorted(unknown)}")
        stored["train"] = stored["train"][: self.train_size]
        return {name: self._velocities(stored, name) for name in names or known}

    def _velocities(self, stored: dict[str, np.ndarray], name: str) -> Tensor:
        vorticity = stored["test" if name == "turned" else name].astype(np.float64)
        velocities = torch.from_numpy(velocity_of(vorticity)).float()
        rng = np.random.default_rng([self.simulation.seed, len(stored)])  # a stream that the simulation does not use
        return turn_randomly(velocities, rng) if name == "turned" else velocities

    def inputs(self, velocities: Tensor) -> Tensor:
        """The input fields (b, 2 or 3, n, n) for velocities (b, 2, n, n)."""
        if not self.vorticity:
            return velocities
        vorticity = vorticity_of(velocities.double().cpu().numpy()) / self.simulation.peak
        return torch.cat([velocities, torch.from_numpy(vorticity)[:, None].to(velocities)], dim=1)

    def make_datasets(self) -> dict[str, Dataset]:
        return {name: self._samples(flows) for name, flows in self.trajectories().items()}

    def _samples(self, flows: Tensor) -> TensorDataset:
        return TensorDataset(self.inputs(flows[:, :-1].flatten(0, 1)), flows[:, 1:].flatten(0, 1))


class AugmentedFlow(Flow):
    """`Flow` with random quarter turns and mirrorings of the training samples, drawn anew in each step.

    The draws depend on the seed, the step and the rank of the process alone: a resumed run repeats those of an
    uninterrupted run.
    """

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer is None or not self.trainer.training:
            return batch
        draws = [self.seed, self.trainer.global_step, self.trainer.global_rank]
        return [turn_randomly(fields, np.random.default_rng(draws)) for fields in batch]  # input and target alike


def turn(fields: Tensor, turns: int, mirrored: bool) -> Tensor:
    """Mirrors a flow, x to −x, if `mirrored`, then turns it by a number of quarter turns, counterclockwise.

    Args:
        fields: (…, 2 or 3, n, n): components along x and y, and a pseudoscalar such as the vorticity, which mirroring negates.
        turns: number of quarter turns.
        mirrored: whether it is mirrored.

    Examples:
        >>> up = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
        >>> turn(up, turns=1, mirrored=False).flatten().tolist()  # to the left
        [-1.0, 0.0]
    """
    x, y, *others = fields.unbind(dim=-3)
    if mirrored:
        x, y, *others = (part.flip(-1) for part in (-x, y, *(-other for other in others)))
    for _ in range(turns % 4):
        x, y = -y, x
    return torch.stack([x, y, *others], dim=-3).rot90(turns, (-2, -1))


def turn_randomly(fields: Tensor, rng: np.random.Generator) -> Tensor:
    """Turns and mirrors each flow of a batch (b, …, 2 or 3, n, n) by itself, by one of the eight symmetries of the grid."""
    draws = zip(fields, rng.integers(4, size=len(fields)), rng.integers(2, size=len(fields)), strict=True)
    return torch.stack([turn(flow, int(turns), bool(mirrored)) for flow, turns, mirrored in draws])
