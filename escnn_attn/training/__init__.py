"""Training with PyTorch Lightning and Hydra; needs the extra `train`."""

import escnn_attn  # noqa: F401  (the guards of compat, before anything imports escnn)
from escnn_attn.training.callbacks import AveragedWeights, SeedSteps
from escnn_attn.training.classifier import ImageClassifier
from escnn_attn.training.data import Digits, DigitsDataModule, RotatedMNIST

__all__ = ["AveragedWeights", "Digits", "DigitsDataModule", "ImageClassifier", "RotatedMNIST", "SeedSteps"]
