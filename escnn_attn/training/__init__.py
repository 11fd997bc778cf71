"""Training with PyTorch Lightning and Hydra. Needs the extra `train`."""

from escnn_attn.training._memory import keep_freed_memory
from escnn_attn.training.array_prediction import ArrayPredictor, CloudPredictor, FieldPredictor, find_arrays
from escnn_attn.training.augment import RandomDeformation, TurnedAverage
from escnn_attn.training.callbacks import AveragedWeights, CudaGraph, EarlyStop, RequireFiniteLoss, SeedSteps
from escnn_attn.training.checkpoints import AtomicCheckpointIO, BestCheckpoint, InterruptedCheckpoint
from escnn_attn.training.class_report import ClassReport
from escnn_attn.training.classifier import ImageClassifier
from escnn_attn.training.command_line import brief_errors, parse_options
from escnn_attn.training.evaluation import evaluate
from escnn_attn.training.fields import FieldRegression, RelativeError
from escnn_attn.training.loggers import ResumableCSVLogger
from escnn_attn.training.module import SupervisedModule, load_module
from escnn_attn.training.prediction import ImagePredictor, find_images
from escnn_attn.training.progress import CompactProgressBar
from escnn_attn.training.publish import publish
from escnn_attn.training.regression import AbsoluteCloudRegression, CloudRegression
from escnn_attn.training.run import train
from escnn_attn.training.segmentation import ImageSegmentation

__all__ = [
    "AbsoluteCloudRegression",
    "ArrayPredictor",
    "AtomicCheckpointIO",
    "AveragedWeights",
    "BestCheckpoint",
    "ClassReport",
    "CloudPredictor",
    "CloudRegression",
    "CompactProgressBar",
    "CudaGraph",
    "EarlyStop",
    "FieldPredictor",
    "FieldRegression",
    "ImageClassifier",
    "ImagePredictor",
    "ImageSegmentation",
    "InterruptedCheckpoint",
    "RandomDeformation",
    "TurnedAverage",
    "RelativeError",
    "RequireFiniteLoss",
    "ResumableCSVLogger",
    "SeedSteps",
    "SupervisedModule",
    "brief_errors",
    "evaluate",
    "find_arrays",
    "find_images",
    "keep_freed_memory",
    "load_module",
    "parse_options",
    "publish",
    "train",
]
