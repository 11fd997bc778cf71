"""Configurations compose, and give the networks of the recorded results."""

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Trainer

from escnn_attn.training import RandomDeformation

RECORDS = Path(__file__).parents[2] / "docs" / "results" / "comparison"
SYSTEMS = sorted(path.name.removesuffix("_10000_0") for path in RECORDS.glob("*_10000_0"))
#: keys that were renamed since the results were recorded
RENAMED = {"heads": "num_heads", "fraction": "rotary_fraction", "scales": "head_groups"}
#: the default when the results were recorded, explicit in the configurations
POSITION = {"_target_": "escnn_attn.RotaryEmbedding", "_partial_": True, "rotary_fraction": 0.5}

#: the same of every network
EXPLICIT = {"in_type": 1, "num_classes": 10}


def composed(*overrides: str):
    with initialize_config_module("escnn_attn.conf", version_base="1.3"):
        return compose("train", overrides=list(overrides))


def module_of(config):
    return instantiate(config.module, _recursive_=False, _convert_="all")


def renamed(config):
    if config == "escnn.nn.IIDBatchNorm2d":
        return "escnn_attn.SteerableBatchNorm"  # which has taken its place
    if not isinstance(config, dict):
        return config
    return {RENAMED.get(key, key): renamed(value) for key, value in config.items()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_systems_of_the_comparison_are_those_of_the_recorded_results(system):
    config = composed("experiment=comparison", f"system={system}")
    expected = EXPLICIT | renamed(json.loads((RECORDS / f"{system}_10000_0" / "results.json").read_text())["model"])
    if system.startswith("steerable"):
        expected["block"] |= {"position": POSITION | ({"head_groups": 1} if "so2" in system else {})}
    assert config.name == system
    assert OmegaConf.to_container(config.model, resolve=True) == expected
    module = module_of(config)
    assert module(torch.zeros(1, 1, 29, 29)).shape == (1, 10)
    size = {"50k": 50_000, "350k": 350_000}[system.rpartition("_")[2]]
    assert sum(p.numel() for p in module.parameters()) == pytest.approx(size, rel=0.1)


def test_values_of_a_system_can_be_overridden():
    config = composed("experiment=comparison", "system=plain_50k", "systems.plain_50k.channels=8", "data=digits")
    assert config.module.model.channels == 8
    assert set(SYSTEMS) <= set(config.systems)


@pytest.mark.parametrize("overrides", [[], ["model=plain"], ["experiment=rotmnist"], ["data=rotmnist", "trainer.devices=2"]])
def test_configurations_instantiate(overrides):
    module = module_of(composed(*overrides, "name=test"))
    assert module(torch.zeros(1, 1, 29, 29)).shape == (1, 10)
    parameters = sum(p.numel() for p in module.parameters())
    assert 30_000 < parameters < (500_000 if "experiment=rotmnist" in overrides else 70_000)


@pytest.mark.parametrize("model", ["steerable", "plain", "convolutions", "group_attention"])
def test_models_of_images_instantiate(model):
    assert module_of(composed(f"model={model}", "name=test"))(torch.zeros(1, 1, 29, 29)).shape == (1, 10)


def test_an_experiment_overrides_the_defaults_and_the_command_line_an_experiment():
    config = composed("experiment=rotmnist", "angle_images=7", "name=rotmnist")
    assert (config.name, config.model.channels, config.data.batch_size) == ("rotmnist", 20, 64)
    assert config.module.label_smoothing == 0.1
    assert config.angle_images == 7


def test_the_usual_keys_of_the_trainer_need_no_plus():
    values = {
        "precision": "bf16-mixed", "max_steps": 3, "max_time": {"hours": 1}, "accumulate_grad_batches": 2,
        "limit_train_batches": 4, "limit_val_batches": 4, "limit_test_batches": 4, "limit_predict_batches": 4,
        "fast_dev_run": True, "overfit_batches": 0.5, "deterministic": True, "detect_anomaly": True, "strategy": "ddp",
        "num_nodes": 2, "profiler": "simple", "check_val_every_n_epoch": 2, "val_check_interval": 0.5, "devices": 2,
        "accelerator": "cpu", "gradient_clip_val": 0.5,
    }  # fmt: skip
    config = composed(*(f"trainer.{key}={value}".replace("'", "").replace(": ", ":") for key, value in values.items()))
    assert {key: config.trainer[key] for key in values} == values


def test_the_defaults_of_the_trainer_are_accepted_by_lightning():
    config = composed("trainer.default_root_dir=.", "+trainer.logger=false")
    trainer = instantiate(config.trainer)
    assert isinstance(trainer, Trainer)
    assert (trainer.max_epochs, trainer.max_steps, trainer.precision) == (10, -1, "32-true")


@pytest.mark.parametrize(
    ("name", "accelerator", "devices", "strategy"),
    [("default", "auto", 1, "auto"), ("cpu", "cpu", 1, "auto"), ("gpu", "gpu", 1, "auto"), ("ddp", "auto", 2, "ddp")],
)
def test_trainers_differ_from_the_default_in_hardware_alone(name, accelerator, devices, strategy):
    config = composed(f"trainer={name}", "trainer.precision=bf16-mixed", "trainer.default_root_dir=.").trainer
    assert (config.accelerator, config.devices, config.strategy) == (accelerator, devices, strategy)
    hardware = {"accelerator", "devices", "strategy"}
    default = composed("trainer.precision=bf16-mixed", "trainer.default_root_dir=.").trainer
    assert {key: value for key, value in config.items() if key not in hardware} == {
        key: value for key, value in default.items() if key not in hardware
    }
    if name != "gpu":
        assert instantiate(config, logger=False).strategy.accelerator is not None


@pytest.mark.parametrize("group", ["logger", "callbacks", "trainer"])
def test_every_file_of_a_group_composes_alone_and_in_a_list(group):
    names = sorted(path.stem for path in (RECORDS.parents[2] / "conf" / group).glob("*.yaml"))
    assert len(names) > 2
    for name in names:
        assert name == "default" or group == "trainer" or name in composed(f"{group}={name}")[group]
    if group != "trainer":
        few = [name for name in names if name != "default"][:2]
        assert set(few) <= set(composed(f"{group}=[{','.join(few)}]")[group])


@pytest.mark.parametrize("model", ["steerable", "plain", "convolutions", "group_attention", "backbone"])
def test_every_network_that_the_page_of_images_names_can_be_taken(model):
    config = composed("experiment=images", "data.folder=nowhere", f"model={model}", "model.in_type=3", "model.num_classes=2")
    network = instantiate(config.model)
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 2)


@pytest.mark.parametrize("experiment", ["images", "segmentation"])
def test_augmentation_is_overridden_by_any_of_its_keys(experiment):
    config = composed(f"experiment={experiment}", "module.augmentation={degrees: 180, flip: 0.5}", "module.augmentation.p=0.9")
    assert RandomDeformation(**config.module.augmentation).flip == 0.5


@pytest.mark.parametrize("model", ["steerable_points", "plain_points", "flow_transformer", "unet", "steerable_unet"])
def test_types_are_overridden_by_any_of_their_fields(model):
    config = composed(
        f"model={model}", "model.in_type={vectors: 1, pseudoscalars: 2}", "model.out_fields={scalars: 1, vectors: 0}"
    )
    assert instantiate(config.model).out_type.size == 1
