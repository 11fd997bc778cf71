"""Backbones and dense networks: exact on images of every size, and the interface of timm."""

import copy
import math

import pytest
import torch
from escnn.group import GroupElement
from escnn.nn import FieldType

from escnn_attn import Stage, SteerableBackbone, SteerableDenseTransformer, SteerableTransformer, patch_stem, planar_gspace
from escnn_attn.models.pyramid import STAGES
from tests.helpers import relative

STAGES_OF_TEST = [
    Stage(2, 1, stride=4, radius=2.5, max_frequency=1),
    Stage(4, 1, num_heads=2, max_frequency=1),
    Stage(2, 1, max_frequency=1),
]
GROUPS = ("SO2", "O2", "C8", "D4")
FIELDS = {"scalars": 1, "vectors": 1}
ALL_SIDES = [*range(16, 65), 69, 96, 97, 224, 225, 256, 480, (30, 33), (224, 320)]


def moves(group: str, square: bool) -> list[tuple[GroupElement, int, bool]]:
    """Group elements, quarter turns, and whether they flip: those that map an image to itself."""
    elements = planar_gspace(group).fibergroup.element
    turn = {
        "SO2": lambda k: elements(k * math.pi / 2),
        "O2": lambda k: elements((0, k * math.pi / 2)),
        "C8": lambda k: elements(2 * k),
        "D4": lambda k: elements((0, k)),
    }[group]
    found = [(turn(k), k, False) for k in ((1, 2) if square else (2,))]
    return found if group in ("SO2", "C8") else [*found, (elements((1, 0.0 if group == "O2" else 0)), 0, True)]


def moved(x: torch.Tensor, t: FieldType | None, move: tuple[GroupElement, int, bool]) -> torch.Tensor:
    element, turns, flip = move
    x = x.flip(-1) if flip else x.rot90(turns, (-2, -1))
    return x if t is None else torch.einsum("ij,bjhw->bihw", torch.tensor(t.representation(element)).to(x), x)


def networks(group: str) -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    limit = 1 if "O" in group else None
    return {
        "network": SteerableTransformer(group, in_type=FIELDS, channels=2, max_frequency=limit, depth=1, stem=patch_stem),
        "backbone": SteerableBackbone(group, in_type=FIELDS, stages=STAGES_OF_TEST, num_classes=5),
        "dense": SteerableDenseTransformer(group, in_type=FIELDS, out_fields=FIELDS, stages=STAGES_OF_TEST),
    }


def largest_error(group: str, size: int | tuple[int, int]) -> float:
    """Of all networks under all elements that map images of a size to themselves."""
    height, width = size if isinstance(size, tuple) else (size, size)
    x, errors = torch.randn(1, 3, height, width), []
    for name, network in networks(group).items():
        network.eval()
        with torch.no_grad():
            outputs = [network(x)] if name != "backbone" else [network(x), *features(network, x)]
            for move in moves(group, height == width):
                turned = moved(x, network.in_type, move)
                again = [network(turned)] if name != "backbone" else [network(turned), *features(network, turned)]
                errors += [relative(plain(b), expected(a, move)) for a, b in zip(outputs, again, strict=True)]
    return max(errors)


def features(network, x):
    return network.forward_intermediates(x, intermediates_only=True)


def plain(y):
    return y if isinstance(y, torch.Tensor) else y.tensor


def expected(y, move):
    return y if isinstance(y, torch.Tensor) else moved(y.tensor, y.type, move)


@pytest.mark.parametrize(("group", "size"), [("SO2", 30), ("O2", (18, 21)), ("C8", 29), ("D4", 16)])
def test_images_of_every_size_turn_exactly(group, size):
    assert largest_error(group, size) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("size", ALL_SIDES)
@pytest.mark.parametrize("group", GROUPS)
def test_images_of_all_sizes_turn_exactly(group, size):
    assert largest_error(group, size) < 1e-5


def test_periodic_images_turn_and_may_be_shifted():
    """By multiples of all strides."""
    torch.manual_seed(0)
    stages = [Stage(2, 1, stride=2, radius=2.5, max_frequency=1), Stage(2, 1, radius=2.5, max_frequency=1)]
    network = SteerableDenseTransformer(
        "O2", in_type=FIELDS, out_fields=FIELDS, stages=stages, disc=False, periodic=True
    ).eval()
    x = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        y = network(x)
        assert relative(network(x.roll((4, -8), (2, 3))).tensor, y.tensor.roll((4, -8), (2, 3))) < 1e-5
        for move in moves("O2", square=True):
            assert relative(network(moved(x, network.in_type, move)).tensor, expected(y, move)) < 1e-5
        assert relative(network.export()(x), y.tensor) < 1e-5
        with pytest.raises(ValueError, match="multiples of the stride 2, got 9 × 12"):
            network(torch.randn(1, 3, 18, 24))
        with pytest.raises(ValueError, match="radius must be less than half of the periodic cell"):
            network(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="expected disc=False for periodic images"):
        SteerableBackbone("O2", stages=stages, periodic=True)


def test_a_disc_turns_too():
    torch.manual_seed(0)
    network = SteerableDenseTransformer("C8", in_type=1, out_fields=FIELDS, stages=STAGES_OF_TEST, disc=True).eval()
    x = torch.randn(1, 1, 22, 22)
    with torch.no_grad():
        y = network(x)
        for move in moves("C8", square=True):
            assert relative(network(moved(x, None, move)).tensor, expected(y, move)) < 1e-5
        corner = x.clone()
        corner[..., :3, :3] += 1
        assert relative(network(corner).tensor, y.tensor) < 1e-6  # corners do not count


def test_features_are_described_as_by_timm():
    network = SteerableBackbone("O2", in_type=3, stages=STAGES_OF_TEST, num_classes=4).eval()
    x, info = torch.randn(2, 3, 32, 40), network.feature_info
    assert info.reduction() == [4, 8, 16]
    for form, channels in (("NCHW", info.channels()), ("invariants", info.invariants())):
        last, found = network.forward_intermediates(x, output_fmt=form)
        assert [f.shape[1] for f in found] == channels
        assert [f.shape[2:] for f in found] == [(-(-32 // r), -(-40 // r)) for r in info.reduction()]
        assert last.shape == found[-1].shape
    fields = network.forward_intermediates(x, intermediates_only=True)
    assert [f.type.size for f in fields] == info.channels()
    assert torch.equal(network.forward_intermediates(x, 1, output_fmt="NCHW")[1][0], fields[-1].tensor)
    assert torch.equal(network.forward_intermediates(x, [0, -2], intermediates_only=True)[1].tensor, fields[1].tensor)
    assert [network.get_submodule(entry["module"]) for entry in info] == list(network.blocks.stacks)
    with pytest.raises(ValueError, match="indices"):
        network.forward_intermediates(x, [3])
    with pytest.raises(ValueError, match="output_fmt to be one of 'fields', 'NCHW', 'invariants', got 'NLC'"):
        network.forward_intermediates(x, output_fmt="NLC")


def test_the_head_is_that_of_the_features():
    network = SteerableBackbone("C8", in_type=3, stages=STAGES_OF_TEST, num_classes=4).eval()
    x = torch.randn(2, 3, 33, 32)
    assert relative(network.forward_head(network.forward_features(x)), network(x)) < 1e-5
    network.reset_classifier(7)
    assert network(x).shape == (2, 7)
    network.reset_classifier(0)
    assert torch.equal(network(x), network.invariants(x))
    assert network(x).shape == (2, network.out_type.size)


def test_frozen_stages_stay_as_they_are():
    network = SteerableBackbone("C8", in_type=1, stages=STAGES_OF_TEST, num_classes=2).train()
    network.freeze(2)
    before = copy.deepcopy(network.state_dict())
    assert not network.stem.training
    assert not network.blocks.stacks[1].training
    assert network.blocks.stacks[2].training
    network(torch.randn(1, 1, 32, 32)).sum().backward()
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    changed = {
        name.split(".")[1] + name.split(".")[2]
        for name, p in network.state_dict().items()
        if name.startswith("blocks") and not torch.equal(p, before[name])
    }
    assert changed == {"mergings1", "stacks2", "normgains"}
    network.freeze(0)
    assert all(p.requires_grad for p in network.parameters())
    assert network.stem.training
    with pytest.raises(ValueError, match="stages"):
        network.freeze(4)


def test_masks_follow_through_the_stages():
    """What a mask leaves out does not matter, and a mask may turn with the image."""
    network = SteerableDenseTransformer("C8", in_type=1, out_fields=1, stages=STAGES_OF_TEST).eval()
    x, mask = torch.randn(1, 1, 24, 24), torch.ones(1, 24, 24, dtype=torch.bool)
    mask[:, :, 17:] = False
    with torch.no_grad():
        y = network(x, mask=mask).tensor
        assert torch.equal(y[..., 17:], torch.zeros_like(y[..., 17:]))
        assert relative(network(x.masked_fill(~mask[:, None], 7.0), mask=mask).tensor, y) < 1e-6
        turned = network(x.rot90(1, (-2, -1)), mask=mask.rot90(1, (-2, -1))).tensor
        assert relative(turned, y.rot90(1, (-2, -1))) < 1e-5
        assert relative(network(x).tensor, y) > 1e-2


@pytest.mark.parametrize("kind", ["backbone", "dense"])
def test_exports_copies_and_checkpointing_compute_the_same(kind):
    network = networks("O2")[kind].eval()
    x = torch.randn(2, 3, 20, 17)
    with torch.no_grad():
        y = plain(network(x))
        assert relative(network.export()(x), y) < 1e-5
        assert torch.equal(plain(copy.deepcopy(network)(x)), y)
    gradients = []
    for again in (False, True):
        for stack in network.blocks.stacks:
            stack.checkpointing = again
        network.zero_grad()
        plain(network(x)).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert relative(gradients[1], gradients[0]) < 1e-5
    assert len(gradients[0]) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("name", "millions"), [("tiny", 1), ("small", 5)])
def test_sizes_have_the_parameters_that_their_names_promise(name, millions):
    network = SteerableBackbone("SO2", stages=name, num_classes=10)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(millions * 1e6, rel=0.15)


@pytest.mark.parametrize(
    ("stages", "error", "message"),
    [
        ("huge", ValueError, "expected stages to be one of 'tiny', 'small', 'base', or a list of stages, got 'huge'"),
        ([{"channels": 2, "depth": 0}], ValueError, "depth"),
        ([{"channels": 2, "depth": 1, "radius": -1.0}], ValueError, "radius"),
        ([4], TypeError, "stages must be of type Stage, got 4"),
        ([], ValueError, "stages"),
    ],
)
def test_bad_stages(stages, error, message):
    with pytest.raises(error, match=message):
        SteerableBackbone("C4", stages=stages)


def test_stages_may_be_plain_data():
    """As configurations have them."""
    network = SteerableBackbone("C4", stages=[{"channels": 2, "depth": 1, "stride": 4}], num_classes=2)
    assert network.blocks.strides == [4]
    assert set(STAGES) == {"tiny", "small", "base"}


def test_a_head_takes_the_mask_of_its_tokens():
    model = SteerableBackbone(
        "C4", in_type=1, num_classes=5, stages=[Stage(2, 1, stride=4, max_frequency=1)], disc=False
    ).eval()
    x, mask = torch.randn(1, 1, 33, 33), torch.ones(1, 33, 33, dtype=torch.bool)
    mask[..., :12] = False
    features = model.forward_features(x, mask=mask)
    tokens = mask[:, ::4, ::4]
    assert tokens.shape[1:] == features.tensor.shape[2:]
    assert relative(model.forward_head(features, mask=tokens), model(x, mask=mask)) < 1e-6
