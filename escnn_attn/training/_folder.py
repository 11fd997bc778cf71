"""The folder of a run: whose it is, whether it is free, and the checkpoint to go on from."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from escnn_attn.data._files import is_damaged, require_whole_checkpoint
from escnn_attn.files import remove_leftovers, write_json

#: seconds to wait for a folder: processes that load data may outlive a killed run by a few
PATIENCE = 7.0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder within the block; of several processes of one run the first keeps it.

    Raises:
        RuntimeError: if a process that runs has the folder, with its number, machine and start.
    """
    if getattr(rank_zero_only, "rank", 0):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".owner.json"
    try:
        with FileLock(folder / ".lock", timeout=PATIENCE):
            remove_leftovers(folder)
            write_json(owner, f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            try:
                yield
            finally:
                owner.unlink(missing_ok=True)
    except Timeout:
        who = owner.read_text().strip('"') if owner.exists() else "another process"
        raise RuntimeError(f"expected a folder of its own, got {folder}, in which {who} trains") from None


def checkpoint_to_start_from(folder: Path, ckpt_path: str | None, resume: bool) -> Path | None:
    """Chooses the checkpoint that a run in a folder starts from; None to start anew.

    `ckpt_path` if given, otherwise with `resume` the last checkpoint, or the best if the last is damaged or missing.

    Raises:
        FileNotFoundError: if there is no file `ckpt_path`.
        ValueError: if the folder holds another run but `resume` is not set, or the checkpoints are damaged.
    """
    stored = sorted((folder / "checkpoints").glob("*.ckpt"))
    if ckpt_path is not None:
        require_whole_checkpoint(ckpt_path)
    if not resume and (ckpt_path is None or Path(ckpt_path).resolve() not in [path.resolve() for path in stored]):
        _require_free(folder, stored)
    return Path(ckpt_path) if ckpt_path is not None else _checkpoint_to_resume(stored) if resume else None


def _require_free(folder: Path, stored: list[Path]) -> None:
    found = [*stored, *(path for path in [folder / "results.json"] if path.exists())]
    if found:
        names = ", ".join(path.name for path in found)
        raise ValueError(
            f"expected an empty folder, or resume=true, got {folder}, which holds {names} of a run: continue it with "
            "resume=true, choose another folder (hydra.run.dir=…, hydra.sweep.dir=…), or remove it"
        )


def _checkpoint_to_resume(stored: list[Path]) -> Path | None:
    candidates = [path for name in ("last", "best") for path in stored if path.stem == name]
    damaged = [path for path in candidates if is_damaged(path)]
    whole = [path for path in candidates if path not in damaged]
    if damaged and not whole:
        raise ValueError(
            f"expected a whole checkpoint to resume from, got damaged {', '.join(map(str, damaged))}: remove them to start anew"
        )
    for path in damaged:
        print(f"{path} is damaged; the run goes on from {whole[0]}")
    return whole[0] if whole else None
