"""Weights that ship, and folders from elsewhere."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from escnn_attn import SteerableBackbone, SteerableStack, SteerableTransformer, steerable_block
from escnn_attn.data import Digits, rotate_images, to_input
from escnn_attn.models import build
from escnn_attn.pretrained import available, read_config, resolve

SMALL = {"_target_": "escnn_attn.SteerableTransformer", "group": "C4", "channels": 2, "depth": 1}
#: what ran code in an earlier version, where all names were trusted but a few
ATTACKS = {
    "pickle of torch": {"_target_": "torch.load", "f": "weights.pt", "weights_only": False},
    "pickle of numpy": {"_target_": "numpy.load", "file": "weights.npy", "allow_pickle": True},
    "pickle of joblib": {"_target_": "joblib.load", "filename": "weights.joblib"},
    "native code": {"_target_": "torch.classes.load_library", "path": "evil.so"},
    "native code by numpy": {"_target_": "numpy.ctypeslib.load_library", "libname": "evil", "loader_path": "."},
    "a folder of code": {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "evil", "source": "local"},
    "a module": {"_target_": "canary.run"},
    "a file": {"_target_": "io.open", "file": "written", "mode": "w"},
    "a copy": {"_target_": "shutil.copyfile", "src": "config.json", "dst": "written"},
    "a private name": {"_target_": "escnn_attn.compat.np.load"},
    "a module of the library": {"_target_": "escnn_attn.testing"},
    "another function of torch.nn": {"_target_": "torch.nn.parallel.data_parallel"},
    "no class of torch.nn": {"_target_": "torch.nn.init"},
    "no name": {"_target_": None},
}


def folder_of(path: Path, network: torch.nn.Module | None = None, **config) -> Path:
    path.mkdir(exist_ok=True)
    state = (network or build(SMALL)).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, path / "model.safetensors")
    checksum = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    (path / "config.json").write_text(json.dumps({"model": SMALL, "sha256": checksum, **config}))
    return path


class Own:
    """A user's factory of blocks."""

    def __call__(self, field_type):
        return steerable_block(field_type, num_heads=1)


def own_block() -> Own:
    return Own()


@pytest.mark.parametrize("name", ["rotmnist", "rotmnist_50k"])
def test_shipped_weights_recognize_digits_they_have_not_seen_upright(name):
    """Some of these digits, rotated otherwise, may have been among those it was trained on: a test of loading alone."""
    assert name in available()
    images, labels = (part[:200] for part in Digits().arrays()["upright"])
    network = SteerableTransformer.from_pretrained(name)
    with torch.no_grad():
        logits = network(to_input(rotate_images(images, np.linspace(0, 360, 200))))
    assert (logits.argmax(dim=1).numpy() == labels).mean() > 0.95


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("where", ["network", "argument", "list", "beside"])
def test_names_that_are_not_trusted_are_refused_before_anything_is_called(tmp_path, monkeypatch, attack, where):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "canary.py").write_text("open('written', 'w')\n")
    called = []
    monkeypatch.setattr("escnn_attn.SteerableTransformer", lambda **_: called.append(1))
    evil = ATTACKS[attack]
    nested = {"argument": {**SMALL, "block": {**evil, "_partial_": True}}, "list": {**SMALL, "strides": [[evil]]}}
    config = {"network": evil, "beside": {"_target_": "torch.nn.Sequential", "a": SMALL, "b": evil}, **nested}[where]
    with pytest.raises(
        ValueError, match=r"expected a public name of escnn_attn, a module of escnn\.nn or of torch\.nn, or one of"
    ):
        SteerableTransformer.from_pretrained(folder_of(tmp_path / "foreign", torch.nn.Identity(), model=config))
    assert not called
    assert not (tmp_path / "written").exists()
    assert "canary" not in sys.modules


def test_names_of_a_user_are_trusted_where_they_are_given(tmp_path):
    config = {**SMALL, "block": {"_target_": f"{__name__}.own_block"}}
    network = build(config, trust=[own_block])
    folder = folder_of(tmp_path, network, model=config)
    with pytest.raises(ValueError, match=r"or one of trust=\[\] as _target_, got .*own_block'"):
        SteerableTransformer.from_pretrained(folder)
    loaded = SteerableTransformer.from_pretrained(folder, trust=[own_block])
    assert isinstance(loaded.blocks, SteerableStack)
    by_name = {"_target_": "collections.Counter", "a": 2}
    assert build(by_name, trust=["collections.Counter"])["a"] == 2
    with pytest.raises(TypeError, match="expected a list of names as trust, got the string"):
        build(by_name, trust="collections.Counter")


def test_one_flipped_byte_is_noticed(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(resolve("rotmnist_50k"), folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(
        ValueError, match=r"expected weights of SHA-256 .* in .*copy.model\.safetensors, got .*damaged or another"
    ):
        SteerableTransformer.from_pretrained(folder)


def test_weights_without_a_checksum_are_loaded_with_a_warning(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "config.json").write_text(json.dumps({"model": SMALL}))
    with pytest.warns(UserWarning, match=r"config\.json has no sha256: damage to model\.safetensors may go unnoticed"):
        SteerableTransformer.from_pretrained(folder)


@pytest.mark.parametrize("content", ["", '{"model": {"_target_": "escnn_a', "[1]", "{}", '{"model": 3}'])
def test_a_damaged_configuration_is_named(tmp_path, content):
    folder = folder_of(tmp_path)
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"expected .* in .*config\.json, got"):
        SteerableTransformer.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"pickle", None], ids=["empty", "other", "truncated"])
def test_damaged_weights_are_named(tmp_path, content):
    folder = folder_of(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps({"model": SMALL, "sha256": checksum}))
    with pytest.raises(ValueError, match=r"expected weights in .*model\.safetensors, got \d+ bytes that are none"):
        SteerableTransformer.from_pretrained(folder)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = build(SMALL)
    with torch.no_grad():
        network.readout.weight[0, 0] = float("nan")
    with pytest.raises(
        ValueError, match=r"expected finite weights in .*model\.safetensors, got NaN or infinity in readout\.weight"
    ):
        SteerableTransformer.from_pretrained(folder_of(tmp_path, network))


@pytest.mark.parametrize("name", available())
def test_shipped_weights_have_their_checksum(name):
    folder = resolve(name)
    assert read_config(folder)["sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert load_file(folder / "model.safetensors")


def test_numbers_of_numpy_are_saved(tmp_path):
    SteerableTransformer("C4", channels=np.int64(2), depth=1).save_pretrained(tmp_path)
    assert read_config(tmp_path)["model"]["channels"] == 2


def test_a_configuration_is_a_copy():
    network = SteerableTransformer("C4", channels=2, depth=1)
    network.config["depth"] = 7
    assert network.config["depth"] == 1


def test_a_new_classifier_is_saved_as_such(tmp_path):
    model = SteerableBackbone("C4", in_type=1, num_classes=10, stages=[{"channels": 2, "depth": 1, "stride": 4}])
    model.reset_classifier(5)
    model.save_pretrained(tmp_path)
    assert SteerableBackbone.from_pretrained(tmp_path).readout.out_features == 5
