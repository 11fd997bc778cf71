"""Data modules: digits, rotated MNIST and charged particles. Needs the extra `train`."""

from escnn_attn.data.base import DataModule
from escnn_attn.data.digits import Digits, ImageDataModule, RotatedMNIST, rotate_images, to_input
from escnn_attn.data.nbody import AugmentedNBody, NBody, PointBatch, point_batch
from escnn_attn.data.particles import ParticleClouds, SimulationConfig, simulate

__all__ = [
    "AugmentedNBody",
    "DataModule",
    "Digits",
    "ImageDataModule",
    "NBody",
    "ParticleClouds",
    "PointBatch",
    "RotatedMNIST",
    "SimulationConfig",
    "point_batch",
    "rotate_images",
    "simulate",
    "to_input",
]
