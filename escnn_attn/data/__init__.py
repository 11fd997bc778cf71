"""Data modules: digits, rotated MNIST, image files and charged particles. Needs the extra `train`."""

from escnn_attn.data._splits import Split
from escnn_attn.data.base import DataModule
from escnn_attn.data.digits import Digits, ImageDataModule, RotatedMNIST, rotate_images, to_input
from escnn_attn.data.images import FileDataModule, ImageFolder
from escnn_attn.data.nbody import AugmentedNBody, NBody, PointBatch, point_batch
from escnn_attn.data.particles import ParticleClouds, SimulationConfig, simulate
from escnn_attn.data.preparation import ImagePreparation
from escnn_attn.data.segmentation import SegmentationFolder
from escnn_attn.data.shapes import Shapes, draw_shapes, write_shapes

__all__ = [
    "AugmentedNBody",
    "DataModule",
    "Digits",
    "FileDataModule",
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
    "draw_shapes",
    "point_batch",
    "rotate_images",
    "simulate",
    "to_input",
    "write_shapes",
]
