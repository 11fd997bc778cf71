"""Data modules: digits, rotated MNIST, image files, charged particles and flows. Needs the extra `train`."""

from escnn_attn.data._splits import Split
from escnn_attn.data.base import DataModule
from escnn_attn.data.digits import Digits, ImageDataModule, RotatedMNIST, rotate_images, to_input
from escnn_attn.data.flow import AugmentedFlow, Flow, TurbulenceConfig, turn
from escnn_attn.data.images import FileDataModule, ImageFolder
from escnn_attn.data.nbody import AugmentedNBody, NBody, PointBatch, point_batch
from escnn_attn.data.particles import ParticleClouds, SimulationConfig, simulate
from escnn_attn.data.preparation import ImagePreparation
from escnn_attn.data.segmentation import SegmentationFolder
from escnn_attn.data.shapes import Shapes, draw_shapes, write_shapes
from escnn_attn.data.turbulence import budgets, energy_spectrum, evolve, random_vorticity, velocity_of, vorticity_of

__all__ = [
    "AugmentedFlow",
    "AugmentedNBody",
    "DataModule",
    "Digits",
    "FileDataModule",
    "Flow",
    "ImageDataModule",
    "ImageFolder",
    "ImagePreparation",
    "NBody",
    "ParticleClouds",
    "PointBatch",
    "RotatedMNIST",
    "SegmentationFolder",
    "Shapes",
    "SimulationConfig",
    "Split",
    "TurbulenceConfig",
    "budgets",
    "draw_shapes",
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
    "write_shapes",
]
