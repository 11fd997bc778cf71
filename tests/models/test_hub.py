"""Networks on the Hugging Face Hub: a stand-in of its library keeps repositories in a folder."""

import fnmatch
import json
import shutil
import sys
import types
from functools import partial
from pathlib import Path

import pytest
import torch

from escnn_attn import (
    Disc,
    PretrainedNetwork,
    RotaryEmbedding,
    Stage,
    SteerableBackbone,
    SteerablePointClassifier,
    SteerablePointTransformer,
    SteerableTransformer,
    SteerableUNet,
    planar_gspace,
    steerable_block,
)
from escnn_attn.models import build
from escnn_attn.pretrained import read_config
from escnn_attn.pretrained.hub import model_card
from tests.helpers import randomize

FACTS = {"metric": "accuracy", "validation": 0.97, "test": {"rotated": 0.95}}


class RepositoryNotFoundError(OSError):
    """As that of the Hub, an OSError; unlike others it says that the name is wrong."""


class StandIn(types.ModuleType):
    """What is used of `huggingface_hub`, with the arguments that version 2.4 has."""

    def __init__(self, root: Path) -> None:
        super().__init__("huggingface_hub")
        self.root, self.calls, self.reachable = root, [], True
        none = type("Unused", (ValueError,), {})
        self.errors = types.SimpleNamespace(
            RepositoryNotFoundError=RepositoryNotFoundError, RevisionNotFoundError=none, HFValidationError=none
        )

    def snapshot_download(self, repo_id, *, revision=None, cache_dir=None, token=None, allow_patterns=None):
        self.calls.append(("snapshot_download", repo_id, revision, cache_dir, token))
        if not self.reachable:
            raise FileNotFoundError("Please check your internet connection")
        if not (self.root / repo_id).is_dir():
            raise RepositoryNotFoundError("404 Client Error. Repository Not Found")
        snapshot = self.root / "cache" / repo_id
        _copy(self.root / repo_id, snapshot, allow_patterns)
        return str(snapshot)

    def HfApi(self, token=None):  # noqa: N802 (its name there)
        def create_repo(repo_id, *, private=None, exist_ok=False):
            self.calls.append(("create_repo", repo_id, private, exist_ok, token))
            return f"https://huggingface.co/{repo_id}"

        def upload_folder(*, repo_id, folder_path, allow_patterns=None, commit_message=None):
            self.calls.append(("upload_folder", repo_id, commit_message))
            _copy(Path(folder_path), self.root / repo_id, allow_patterns)

        return types.SimpleNamespace(create_repo=create_repo, upload_folder=upload_folder)


def _copy(source: Path, target: Path, patterns: list[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns):
            shutil.copy(path, target)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stand_in = StandIn(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    return stand_in


def small(**options) -> SteerablePointClassifier:
    return randomize(SteerablePointClassifier("C4", channels=2, depth=1, **options)).eval()


class OwnNetwork(PretrainedNetwork):
    """A user's network."""

    def __init__(self, width: int, **options: bool) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, 2, **options)


MADE = {
    "images": lambda: SteerableTransformer(
        "SO2", channels=2, max_frequency=1, depth=1,
        block=partial(steerable_block, num_heads=1, position=partial(RotaryEmbedding, rotary_fraction=0.5), neighborhood=Disc(4)),
    ),
    "points": lambda: SteerablePointTransformer("C4", in_type={"scalars": 2}, out_fields={"vectors": 1}, channels=2, depth=1),
    "stages": lambda: SteerableBackbone("C4", stages=[Stage(2, 1, stride=4), {"channels": 2, "depth": 1}], num_classes=3),
    "convolutions": lambda: SteerableUNet("C2", in_type={"vectors": 1}, channels=2, depth=1),
    "a user's": lambda: OwnNetwork(3, bias=False),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_saved_networks_come_back_equal(name, tmp_path):
    network = MADE[name]()
    network.save_pretrained(tmp_path / "saved", FACTS)
    trust = [OwnNetwork] if name == "a user's" else []
    again = type(network).from_pretrained(tmp_path / "saved", trust=trust)
    assert repr(again) == repr(network.eval())
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())
    config = read_config(tmp_path / "saved")
    assert config["test"] == {"rotated": 0.95}
    assert config["parameters"] == sum(p.numel() for p in network.parameters())
    assert again.config == network.config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SteerableTransformer(planar_gspace("C4"), channels=2, depth=1),
            "expected group to be plain data, .* got C4_on_R2",
        ),
        (
            lambda: small(block=lambda t: steerable_block(t)),
            "expected block to be a class or function with a name in its module",
        ),
    ],
)
def test_what_plain_data_cannot_stand_for_is_refused_when_a_network_is_saved(tmp_path, hub, make, message):
    network = make()
    with pytest.raises(TypeError, match=message):
        network.save_pretrained(tmp_path / "saved")
    with pytest.raises(TypeError, match=message):
        network.push_to_hub("user/digits")
    assert not (tmp_path / "saved").exists()
    assert not hub.calls


def test_a_pushed_network_is_loaded_by_its_name(hub):
    network = small()
    cloud = network.in_type(torch.randn(5, 1), torch.randn(5, 2))
    address = network.push_to_hub("user/digits", facts=FACTS, private=True, token="secret", message="first")
    assert address == "https://huggingface.co/user/digits"
    assert hub.calls == [("create_repo", "user/digits", True, True, "secret"), ("upload_folder", "user/digits", "first")]
    assert {path.name for path in (hub.root / "user/digits").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    again = SteerablePointClassifier.from_pretrained("user/digits", revision="v1", cache_dir="kept", token="mine")
    assert hub.calls[2:] == [("snapshot_download", "user/digits", "v1", "kept", "mine")]
    assert torch.equal(again(cloud), network(cloud))


def test_the_card_tells_how_to_load_and_what_was_measured(hub):
    small().push_to_hub("user/digits", facts=FACTS)
    card = (hub.root / "user/digits/README.md").read_text()
    assert "| accuracy, validation | 0.97 |\n| accuracy, rotated | 0.95 |" in card
    names: dict = {}
    exec(card.split("```python\n")[1].split("```")[0], names)  # the code runs
    assert isinstance(names["network"], SteerablePointClassifier)
    own = model_card("user/own", {"model": {"_target_": "mine.Net"}})
    assert 'Net.from_pretrained("user/own", trust=[Net])' in own


def test_a_folder_goes_before_a_repository_of_its_name(hub):
    small().push_to_hub("user/digits")
    here = small()
    here.save_pretrained("user/digits")
    del hub.calls[:]
    loaded = SteerablePointClassifier.from_pretrained("user/digits")
    assert torch.equal(loaded.readout.weight, here.readout.weight)
    with pytest.raises(ValueError, match=r"revision is for repositories .* got 'v1' for 'user/digits'"):
        SteerablePointClassifier.from_pretrained("user/digits", revision="v1")
    assert not hub.calls


@pytest.mark.parametrize("name", ["weights", "a/b/c", "./weights", "../weights", "/weights"])
def test_other_names_are_no_repositories(hub, name):
    with pytest.raises(ValueError, match=r"or a repository user/name of the Hugging Face Hub, got "):
        SteerablePointClassifier.from_pretrained(name)
    with pytest.raises(ValueError, match="expected a repository 'user/name' of the Hugging Face Hub, got"):
        small().push_to_hub(name)
    assert not hub.calls


def test_without_the_library_an_error_names_the_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (SteerablePointClassifier.from_pretrained, small().push_to_hub):
        with pytest.raises(ImportError, match=r"'user/digits' .* needs huggingface_hub: pip install 'escnn-attn\[hub\]'$"):
            call("user/digits")


def test_a_repository_that_is_missing_or_out_of_reach_is_named(hub):
    with pytest.raises(ValueError, match=r"got 'user/digits' at revision 'v1': 404 .*Repository Not Found"):
        SteerablePointClassifier.from_pretrained("user/digits", revision="v1")
    hub.reachable = False
    with pytest.raises(OSError, match=r"'user/digits' is no folder here, and could not be fetched .* internet connection"):
        SteerablePointClassifier.from_pretrained("user/digits")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_repository_without_one_of_the_files_is_named(hub, file):
    small().push_to_hub("user/digits")
    (hub.root / "user/digits" / file).unlink()
    with pytest.raises(ValueError, match=f"in the repository 'user/digits', .* got none named {file}"):
        SteerablePointClassifier.from_pretrained("user/digits")


def test_damage_of_a_repository_is_noticed_and_its_names_are_not_trusted(hub):
    small().push_to_hub("user/digits")
    folder = hub.root / "user/digits"
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match=r"expected weights of SHA-256 .* the file is damaged or another one"):
        SteerablePointClassifier.from_pretrained("user/digits")
    config = json.loads((folder / "config.json").read_text())
    config["model"]["block"] = {"_target_": "collections.Counter", "_partial_": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"or one of trust=\[\] as _target_, got 'collections.Counter'"):
        SteerablePointClassifier.from_pretrained("user/digits")
    assert build(config["model"]["block"], trust=["collections.Counter"])() == {}
