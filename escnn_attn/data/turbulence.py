"""Decaying turbulence in the plane: a pseudo-spectral solver, random starts, budgets and spectra."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft

#: largest accepted Courant number: a step beyond leaves the region of stability of the method
COURANT = 1.0


class Waves(NamedTuple):
    """Wavenumbers of the coefficients of `scipy.fft.rfft2` of fields on a periodic square of side 2π, with the rows along −y.

    Attributes:
        x: (1, n // 2 + 1), along x; that of the Nyquist frequency is 0, of which no derivative is real.
        y: (n, 1), along y.
        squared: (n, n // 2 + 1), their sum of squares, and 1 for the mean.
        kept: (n, n // 2 + 1), 1 within a third of n, where products of two fields have no aliases, and 0 beyond.
    """

    x: np.ndarray
    y: np.ndarray
    squared: np.ndarray
    kept: np.ndarray


@lru_cache(maxsize=8)
def waves(size: int) -> Waves:
    """Wavenumbers for fields of size × size pixels."""
    rows = np.fft.fftfreq(size, 1 / size)
    x, y = rows[None, : size // 2 + 1].copy(), -rows[:, None]
    if size % 2 == 0:
        x[0, -1] = y[size // 2, 0] = 0
    squared = x**2 + y**2
    kept = np.sqrt(np.fft.rfftfreq(size, 1 / size) ** 2 + rows[:, None] ** 2) < size / 3
    return Waves(x, y, np.where(squared == 0, 1, squared), kept.astype(float))


def _coefficients(fields: np.ndarray) -> np.ndarray:
    """Fourier coefficients (…, n, n // 2 + 1) of fields (…, n, n)."""
    return np.asarray(fft.rfft2(fields))


def _inverse(coefficients: np.ndarray) -> np.ndarray:
    """Fields (…, n, n) of Fourier coefficients (…, n, n // 2 + 1)."""
    return np.asarray(fft.irfft2(coefficients, s=(coefficients.shape[-2],) * 2))


def evolve(vorticity: np.ndarray, *, viscosity: float, time: float, num_steps: int) -> np.ndarray:
    r"""Integrates the vorticity equation $\partial_t\omega + u\cdot\nabla\omega = \nu\Delta\omega$ on a periodic square of side 2π.

    $u = (\partial_y\psi, -\partial_x\psi)$ with $\Delta\psi = -\omega$. The advection is that of Basdevant (1983), by two products,
    $(\partial_x^2 - \partial_y^2)(u_x u_y) + \partial_x\partial_y(u_y^2 - u_x^2)$, without aliases (two-thirds rule of Orszag, 1971); viscosity
    is exact by an integrating factor, the rest a Runge-Kutta method of fourth order. Quarter turns, flips and cyclic shifts of
    the start are those of the end; a flip also changes the sign.

    Args:
        vorticity: (flows, n, n), at pixel centers, with the rows along −y; modes beyond n/3 are removed, and the mean too.
        viscosity: ν.
        time: from start to end.
        num_steps: number of steps of equal length.

    Returns:
        the vorticity (flows, n, n) at the end, float64.

    Raises:
        ValueError: if the shape is another, a number is not positive, or a step is so long that flow crosses a pixel in it.

    Examples:
        >>> x = 2 * np.pi * np.arange(16) / 16
        >>> vortices = np.cos(x) * np.cos(x[:, None])  # of Taylor and Green: they keep their shape, and decay
        >>> end = evolve(vortices[None], viscosity=0.05, time=2.0, num_steps=20)
        >>> bool(np.allclose(end, np.exp(-2 * 0.05 * 2.0) * vortices))
        True
    """
    _require_fields(vorticity)
    if not (viscosity > 0 and time > 0 and num_steps >= 1):
        raise ValueError(f"expected positive viscosity, time and num_steps, got {viscosity}, {time} and {num_steps}")
    k, step = waves(vorticity.shape[-1]), time / num_steps
    decay = np.exp(-viscosity * step / 2 * k.squared)
    spectrum = _coefficients(vorticity.astype(np.float64)) * k.kept
    spectrum[:, 0, 0] = 0
    for _ in range(num_steps):
        first = _advection(spectrum, k)
        middle = decay * spectrum
        second = _advection(middle + step / 2 * decay * first, k)
        third = _advection(middle + step / 2 * second, k)
        fourth = _advection(decay * (middle + step * third), k)
        spectrum = decay * (middle + step / 6 * (decay * first + 2 * (second + third))) + step / 6 * fourth
    end = _inverse(spectrum)
    _require_short(step, vorticity, end)
    return end


def _advection(spectrum: np.ndarray, k: Waves) -> np.ndarray:
    """Coefficients of −u·∇ω of those of ω."""
    stream = spectrum / k.squared
    u = _inverse(1j * k.y * stream)
    v = _inverse(-1j * k.x * stream)
    mixed, difference = _coefficients(u * v), _coefficients(v**2 - u**2)
    return k.kept * ((k.x**2 - k.y**2) * mixed + k.x * k.y * difference)


def _require_short(step: float, start: np.ndarray, end: np.ndarray) -> None:
    """Raises a ValueError unless the Courant number is small at both ends, which also one that is NaN is not."""
    fastest = max(np.abs(velocity_of(vorticity)).max() for vorticity in (start, end))
    courant = fastest * step * start.shape[-1] / (2 * np.pi)
    if not courant <= COURANT:
        raise ValueError(f"expected a Courant number of at most {COURANT:g}, got {courant:.2g}: use more steps")


def velocity_of(vorticity: np.ndarray) -> np.ndarray:
    """The velocity (…, 2, n, n), components along x and y, of a vorticity (…, n, n) on a periodic square of side 2π.

    Examples:
        >>> y = -2 * np.pi * np.arange(8)[:, None] / 8 * np.ones(8)
        >>> bool(np.allclose(velocity_of(np.sin(y)), [np.cos(y), 0 * y]))  # a shear flow
        True
    """
    k = waves(vorticity.shape[-1])
    stream = _coefficients(vorticity) / k.squared
    return _inverse(np.stack([1j * k.y * stream, -1j * k.x * stream], axis=-3))


def vorticity_of(velocity: np.ndarray) -> np.ndarray:
    """The vorticity (…, n, n) of a velocity (…, 2, n, n), $\\partial_x u_y - \\partial_y u_x$; the inverse of `velocity_of`."""
    k = waves(velocity.shape[-1])
    spectra = _coefficients(velocity)
    return _inverse(1j * k.x * spectra[..., 1, :, :] - 1j * k.y * spectra[..., 0, :, :])


def budgets(vorticity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Energy, enstrophy and palinstrophy: half the means of $|u|^2$, $\omega^2$ and $|\nabla\omega|^2$.

    A flow loses them by viscosity alone: $\dot E = -2\nu Z$ and $\dot Z = -2\nu P$.

    Args:
        vorticity: (…, n, n).

    Returns:
        each (…).

    Examples:
        >>> y = 2 * np.pi * np.arange(8)[:, None] / 8 * np.ones(8)
        >>> [float(value.round(6)) for value in budgets(np.sin(2 * y))]
        [0.0625, 0.25, 1.0]
    """
    k = waves(vorticity.shape[-1])
    spectrum = _coefficients(vorticity)
    gradient = _inverse(np.stack([1j * k.x * spectrum, 1j * k.y * spectrum], axis=-3))
    fields = velocity_of(vorticity), vorticity[..., None, :, :], gradient
    energy, enstrophy, palinstrophy = (np.square(field).sum(axis=-3).mean(axis=(-2, -1)) / 2 for field in fields)
    return energy, enstrophy, palinstrophy


def energy_spectrum(velocity: np.ndarray) -> np.ndarray:
    """Energy in rings of wavenumbers: entry k of (…, n // 2) holds those that round to k; the sum is the energy below n/2.

    Args:
        velocity: (…, 2, n, n).

    Examples:
        >>> y = 2 * np.pi * np.arange(8)[:, None] / 8 * np.ones(8)
        >>> energy_spectrum(velocity_of(np.sin(2 * y))).round(6).tolist()
        [0.0, 0.0, 0.0625, 0.0]
    """
    size = velocity.shape[-1]
    frequencies = np.fft.fftfreq(size, 1 / size)
    rings = np.rint(np.hypot(frequencies, frequencies[:, None])).astype(int)
    energies = np.square(np.abs(np.asarray(fft.fft2(velocity)))).sum(axis=-3) / (2 * size**4)
    return np.stack([energies[..., rings == ring].sum(axis=-1) for ring in range(size // 2)], axis=-1)


def random_vorticity(count: int, size: int, peak: float, rng: np.random.Generator) -> np.ndarray:
    """Draws Gaussian vorticity (count, size, size) of isotropic spectrum, whose velocity has a mean square of 1.

    Args:
        count: number of flows.
        size: pixels along each side.
        peak: wavenumber near which most of the energy is.
        rng: of the draws.
    """
    k = waves(size)
    noise = _coefficients(rng.standard_normal((count, size, size)))
    amplitude = k.squared**1.5 * np.exp(-k.squared / peak**2)
    amplitude[0, 0] = 0
    vorticity = _inverse(noise * amplitude * k.kept)
    return vorticity / np.sqrt(2 * budgets(vorticity)[0])[:, None, None]


def _require_fields(vorticity: np.ndarray) -> None:
    if vorticity.ndim != 3 or vorticity.shape[1] != vorticity.shape[2]:
        raise ValueError(f"expected vorticity (flows, n, n), got {vorticity.shape}")
