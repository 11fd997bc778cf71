"""Checkpoints that are whole or not there."""

import tempfile
import zipfile

import pytest
import torch

from escnn_attn.data._files import cached_arrays, is_damaged
from escnn_attn.files import remove_leftovers, write_atomically
from escnn_attn.training import AtomicCheckpointIO
from tests.training.runs import run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    """As on a full disk, within the folder itself."""
    path, plugin = tmp_path / "checkpoints" / "last.ckpt", AtomicCheckpointIO()
    plugin.save_checkpoint({"epoch": 1}, path)

    def full(_, aside):
        aside.write_bytes(b"half")
        assert aside.parent == path.parent
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        plugin.save_checkpoint({"epoch": 2}, path)
    assert plugin.load_checkpoint(path, weights_only=True) == {"epoch": 1}
    assert list(path.parent.iterdir()) == [path]


def test_a_run_writes_checkpoints_in_its_folder_alone(tmp_path, monkeypatch):
    """Not by way of the folder of temporary files, which may be another file system."""
    monkeypatch.setattr(tempfile, "mkstemp", lambda *_, **__: pytest.fail("a file in the folder of temporary files"))
    run(tmp_path / "run", "epochs=1", "logger=[]")
    assert not is_damaged(tmp_path / "run" / "checkpoints" / "last.ckpt")


def test_what_a_killed_process_was_writing_is_removed_at_the_next_start(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    asides = []
    write_atomically(path, lambda aside: [aside.write_bytes(b"whole"), asides.append(aside)])
    asides[0].write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "text"])
def test_damage_is_found(tmp_path, damage):
    path = tmp_path / "a.ckpt"
    torch.save({"weights": torch.rand(1000)}, path)
    assert not is_damaged(path)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "truncated": content[:middle],
            "empty": b"",
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "text": b"none",
        }[damage]
    )
    assert is_damaged(path)


def test_a_damaged_cache_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("ESCNN_ATTN_CACHE", str(tmp_path))
    made = {"a": torch.arange(1000).numpy()}
    cached_arrays("some", lambda: made)
    path = tmp_path / "some.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.warns(UserWarning, match=r"some\.npz is damaged, and made anew"):
        again = cached_arrays("some", lambda: made)
    assert (again["a"] == made["a"]).all()
    assert zipfile.is_zipfile(path)
