"""Training and evaluation on flows, by configuration and command."""

import json
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf, read_write

from escnn_attn.commands import evaluate_flows
from escnn_attn.data import AugmentedFlow, Flow, TurbulenceConfig
from escnn_attn.training import FieldRegression, train

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

SIMULATION = {
    "size": 16, "num_train": 5, "num_validation": 2, "num_test": 12, "num_intervals": 3, "num_steps": 12, "viscosity": 0.02,
    "peak": 3.0,
}  # fmt: skip
SMALL = (
    "experiment=flow", "epochs=1", "data.train_size=5", "data.batch_size=5", "model.channels=2", "model.depth=1",
    "callbacks.progress=null", *(f"++data.simulation.{key}={value}" for key, value in SIMULATION.items()),
)  # fmt: skip


def composed(*overrides: str, hydra: bool = False):
    with initialize_config_module("escnn_attn.conf", version_base="1.3"):
        return compose("train", overrides=list(overrides), return_hydra_config=hydra)


def trained(folder: Path, *overrides: str) -> dict:
    config = composed(*SMALL, *overrides, hydra=True)
    with read_write(config):
        config.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(config)
    return train(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]))


@pytest.mark.parametrize(("data", "kind"), [("flow", Flow), ("flow_augmented", AugmentedFlow)])
def test_the_experiment_is_of_flows_augmented_or_not(data, kind):
    config = composed("experiment=flow", f"data={data}")
    made = instantiate(config.data)
    assert (type(made), made.train_size, made.vorticity) == (kind, 128, False)
    assert made.simulation == TurbulenceConfig(num_train=128)
    assert config.module._target_.endswith("FieldRegression")


@pytest.mark.slow
def test_the_networks_compared_have_about_equally_many_parameters():
    sizes = []
    for model in ("unet", "steerable_unet", "flow_transformer"):
        module = instantiate(composed("experiment=flow", f"model={model}").module, _recursive_=False, _convert_="all")
        assert type(module) is FieldRegression
        sizes.append(sum(p.numel() for p in module.parameters()))
    assert max(sizes) < 1.15 * min(sizes)


@pytest.mark.slow
def test_trained_networks_are_compared_by_a_command(tmp_path, monkeypatch, capsys):
    results = {
        "steerable": trained(tmp_path / "a", "model=steerable_unet"),
        "plain": trained(tmp_path / "b", "model=unet", "data=flow_augmented", "data.vorticity=true", "model.in_type.pseudoscalars=1"),
    }  # fmt: skip
    assert results["steerable"]["test"]["turned"] == pytest.approx(results["steerable"]["test"]["test"], rel=1e-4)
    named = [f"checkpoints.{name}={tmp_path}/{run}/checkpoints/last.ckpt" for name, run in (("steerable", "a"), ("plain", "b"))]
    monkeypatch.setattr(sys, "argv", ["evaluate_flows.py", *named, f"folder={tmp_path}/figures"])
    evaluate_flows.main()
    assert "turned, 3 in" in " ".join(capsys.readouterr().out.split())
    errors = json.loads((tmp_path / "figures" / "flows.json").read_text())
    for name, found in results.items():
        assert errors[name]["test"]["one_step"] == pytest.approx(found["test"]["test"], rel=1e-4)
        assert errors[name]["turned"]["one_step"] == pytest.approx(found["test"]["turned"], rel=1e-4)
    assert errors["steerable"]["turned"]["rollout"] == pytest.approx(errors["steerable"]["test"]["rollout"], rel=1e-4)
    assert errors["steerable"]["turning"] < 1e-5
    assert errors["plain"]["turning"] > 0.1
    assert 0.2 < errors["no change"]["test"]["rollout"][0] < errors["no change"]["test"]["rollout"][2]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "flows.json", "rollout_errors.png", "energy_spectra.png", "vorticity.gif",
    }  # fmt: skip
    # of another simulation, and out of its folder
    config = tmp_path / "b" / "config.yaml"
    config.write_text(config.read_text().replace("viscosity: 0.02", "viscosity: 0.03"))
    with pytest.raises(SystemExit, match="expected checkpoints of runs with the same simulation of flows"):
        evaluate_flows.main()
    config.unlink()
    with pytest.raises(SystemExit, match=r"expected a checkpoint in the folder of a run of experiment=flow, got .*last\.ckpt"):
        evaluate_flows.main()


def test_the_command_needs_checkpoints(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate_flows.py"])
    with pytest.raises(SystemExit, match=r"expected checkpoints\.<name>="):
        evaluate_flows.main()
