"""Data modules: digits, rotated MNIST, charged particles and flows. Needs the extra `train`."""

from escnn_attn.data.base import DataModule
from escnn_attn.data.digits import Digits, ImageDataModule, RotatedMNIST, rotate_images, to_input
from escnn_attn.data.flow import AugmentedFlow, Flow, TurbulenceConfig, turn
from escnn_attn.data.nbody import AugmentedNBody, NBody, PointBatch, point_batch
from escnn_attn.data.particles import ParticleClouds, SimulationConfig, simulate
from escnn_attn.data.turbulence import budgets, energy_spectrum, evolve, random_vorticity, velocity_of, vorticity_of

__all__ = [
    "AugmentedFlow",
    "AugmentedNBody",
    "DataModule",
    "Digits",
    "Flow",
    "ImageDataModule",
    "NBody",
    "ParticleClouds",
    "PointBatch",
    "RotatedMNIST",
    "SimulationConfig",
    "TurbulenceConfig",
    "budgets",
    "energy_spectrum",
    "evolve",
    "point_batch",
    "random_vorticity",
    "rotate_images",
    "simulate",
    "to_input",
    "turn",
    "velocity_of",
    "vorticity_of",
]
