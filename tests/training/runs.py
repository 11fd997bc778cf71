"""Runs of the training command within the process, on a handful of clouds or images."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, read_write

from escnn_attn.training import train

SMALL = (
    "experiment=nbody", "epochs=3", "data.train_size=60", "data.batch_size=20", "model.channels=4", "model.depth=1",
    "model.max_frequency=1", "+data.simulation.num_train=60", "+data.simulation.num_validation=20",
    "+data.simulation.num_test=30", "callbacks.progress=null",
)  # fmt: skip
SMALL_IMAGES = (
    "data=images", "data.image_size=13", "data.batch_size=10", "model.channels=2", "model.depth=1", "model.max_frequency=1",
    "model.block.num_heads=1", "callbacks.progress=null", "epochs=1", "logger=[]",
)  # fmt: skip


def configured(folder: Path, *overrides: str, small: Sequence[str] = SMALL) -> DictConfig:
    """Composes the configuration of a small run in a folder, as the command does."""
    with initialize_config_module("escnn_attn.conf", version_base="1.3"):
        config = compose("train", overrides=[*small, *overrides], return_hydra_config=True)
    with read_write(config):
        config.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(config)
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def run(folder: Path, *overrides: str, small: Sequence[str] = SMALL) -> dict:
    return train(configured(folder, *overrides, small=small))
