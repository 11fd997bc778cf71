"""Kills a small run again and again, resumes it, and compares it with an unbroken one: python scripts/chaos.py kills=20

Half of the kills come at random moments, half while a checkpoint is being written. After each, every file must be readable and at
most the current epoch lost; the final metrics must equal those of the unbroken run. Then a run on a small tmpfs, which needs root,
fills its disk, and goes on once there is space.

Options:
    kills: number of kills; 0 for none.
    epochs: of the run.
    seed: of the moments.
    disk: fill a disk too.
"""

import csv
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch

from escnn_attn.data._files import is_damaged
from escnn_attn.files import read_json
from escnn_attn.training import parse_options
from escnn_attn.training.main import train_command

SMALL = (
    "experiment=nbody", "threads=1", "resume=true", "callbacks.progress=null", "+trainer.enable_progress_bar=false",
    "data.train_size=100", "data.batch_size=20", "model.channels=4", "model.depth=1", "model.max_frequency=1",
    "+data.simulation.num_train=100", "+data.simulation.num_validation=20", "+data.simulation.num_test=30",
)  # fmt: skip


@dataclass
class Options:
    kills: int = 20
    epochs: int = 50
    seed: int = 0
    disk: bool = True


def start(folder: Path, epochs: int) -> ForkProcess:
    """Starts or resumes the run in a folder, in a process of its own that need not import anything."""

    def command() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        sys.argv = ["train.py", *SMALL, f"epochs={epochs}", f"hydra.run.dir={folder}"]
        sys.stdout = sys.stderr = (folder / "output.txt").open("a")
        train_command()

    process = multiprocessing.get_context("fork").Process(target=command)
    process.start()
    return process


def finish(process: ForkProcess, folder: Path) -> dict[str, Any]:
    """Waits for a run, and returns its results."""
    process.join()
    require(process.exitcode == 0, f"a run that ends, got exit status {process.exitcode}: {folder / 'output.txt'}")
    return read_json(folder / "results.json")


def require(holds: bool, expectation: str) -> None:
    if not holds:
        raise SystemExit(f"expected {expectation}")


def kill(process: ForkProcess, folder: Path, target: int, delay: float, writing: bool) -> bool:
    """Kills a run some seconds after its epoch `target`, or at the next writing of a checkpoint; whether it was alive."""
    while process.is_alive() and epochs_done(folder) < target:
        time.sleep(0.01)
    time.sleep(delay)
    while writing and process.is_alive() and not any((folder / "checkpoints").glob(".*.aside*")):
        pass
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


def epochs_done(folder: Path) -> int:
    """Number of whole epochs in the last checkpoint."""
    path = folder / "checkpoints" / "last.ckpt"
    return torch.load(path, map_location="cpu", weights_only=True)["epoch"] + 1 if path.exists() else 0


def validated(folder: Path) -> list[int]:
    """Epochs with a row of validation, which is written before the checkpoint."""
    path = folder / "csv" / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file) if row.get("validation/error")]


def require_sound(folder: Path) -> None:
    """Every checkpoint and JSON file can be read, and at most the current epoch is lost."""
    for path in folder.rglob("*"):
        if not path.name.startswith(".") and path.suffix == ".ckpt":
            require(not is_damaged(path), f"readable files, got the damaged {path}")
        if path.suffix == ".json" and ".aside" not in path.name:
            read_json(path)
    done, newest = epochs_done(folder), max(validated(folder), default=0)
    require(done >= newest, f"a checkpoint of epoch {newest}, got one after {done} epochs")


def require_equal(found: dict[str, Any], whole: dict[str, Any], folder: Path) -> None:
    for key in ("validation", "test", "epochs"):
        require(found[key] == whole[key], f"{key} {whole[key]} of the unbroken run, got {found[key]}")
    rows = [epoch for epoch in validated(folder) if epoch < whole["epochs"]]
    require(sorted(set(rows)) == list(range(whole["epochs"])), f"a row of every epoch in metrics.csv, got {rows}")


def kill_often(folder: Path, whole: dict[str, Any], options: Options) -> None:
    rng, alive = random.Random(options.seed), 0
    epoch = 60 * whole["minutes"] / options.epochs
    for index in range(options.kills):
        before = epochs_done(folder)
        target, delay = before + rng.randint(0, 2), rng.uniform(0, epoch)
        alive += kill(start(folder, options.epochs), folder, target, delay, writing=index % 2 == 1)
        require_sound(folder)
        require(epochs_done(folder) >= before, f"at least {before} epochs as before, got {epochs_done(folder)}")
    require(alive == options.kills, f"{options.kills} kills before the run ended, got {alive}: use more epochs")
    require_equal(finish(start(folder, options.epochs), folder), whole, folder)
    print(f"{options.kills} kills: every file readable, at most an epoch lost, the metrics of the unbroken run")


def fill_disk(folder: Path, whole: dict[str, Any], epochs: int) -> None:
    with small_disk(folder, megabytes=48):
        run, filler = folder / "run", folder / "filler"
        process = start(run, epochs)
        while process.is_alive() and epochs_done(run) < 3:
            time.sleep(0.01)
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        process.join()
        require(process.exitcode != 0, "a run on a full disk to fail, got exit status 0")
        require_sound(run)
        filler.unlink()
        require_equal(finish(start(run, epochs), run), whole, run)
    print("full disk: every file readable, and with space again the metrics of the unbroken run")


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mounts a tmpfs of some megabytes on a folder within the block."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=False)
    require(mounted.returncode == 0, "the right to mount a tmpfs, got none: pass disk=false")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def main() -> None:
    options = parse_options(Options, __doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = finish(start(folder / "whole", options.epochs), folder / "whole")
        if options.kills:
            kill_often(folder / "killed", whole, options)
        if options.disk:
            fill_disk(folder / "disk", whole, options.epochs)


if __name__ == "__main__":
    main()
