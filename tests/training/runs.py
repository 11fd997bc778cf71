"""Runs of the training command within the process, on a handful of clouds."""

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


def configured(folder: Path, *overrides: str) -> DictConfig:
    """Composes the configuration of a small run in a folder, as the command does."""
    with initialize_config_module("escnn_attn.conf", version_base="1.3"):
        config = compose("train", overrides=[*SMALL, *overrides], return_hydra_config=True)
    with read_write(config):
        config.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(config)
    return OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])


def run(folder: Path, *overrides: str) -> dict:
    return train(configured(folder, *overrides))
