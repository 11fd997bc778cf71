"""Training with PyTorch Lightning and Hydra; needs the extra `train`."""

import escnn_attn
from escnn_attn.data.base import DataModule
from escnn_attn.data.digits import Digits, DigitsDataModule, RotatedMNIST
from escnn_attn.data.nbody import AugmentedNBody, NBody
from escnn_attn.data.particles import Recipe
from escnn_attn.training.augment import RandomDeformation
from escnn_attn.training.base import Learner, load_learner
from escnn_attn.training.callbacks import AveragedWeights, BestCheckpoint, SeedSteps
from escnn_attn.training.classifier import ImageClassifier
from escnn_attn.training.regression import AbsoluteCloudRegression, CloudRegression

__all__ = [
    "AbsoluteCloudRegression",
    "AugmentedNBody",
    "AveragedWeights",
    "BestCheckpoint",
    "CloudRegression",
    "DataModule",
    "Digits",
    "DigitsDataModule",
    "ImageClassifier",
    "Learner",
    "NBody",
    "RandomDeformation",
    "Recipe",
    "RotatedMNIST",
    "SeedSteps",
    "load_learner",
]
