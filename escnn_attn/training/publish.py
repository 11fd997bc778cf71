"""Export of the weights of a finished run."""

from pathlib import Path

from escnn_attn.files import read_json
from escnn_attn.models.config import Trust
from escnn_attn.pretrained import write_network
from escnn_attn.training.module import load_module


def publish(run: Path, folder: Path, checkpoint: str = "last", *, trust: Trust = ()) -> None:
    """Writes weights, their checksum and results of a run to a folder that `SteerableTransformer.from_pretrained` loads.

    Args:
        run: folder with `results.json` and checkpoints.
        folder: created if it does not exist.
        checkpoint: name of the checkpoint, without its suffix.
        trust: as of `load_module`, for modules and networks of your own.

    Raises:
        FileNotFoundError: if the run has no such checkpoint, or no results.
    """
    results = read_json(run / "results.json")
    network = load_module(run / "checkpoints" / f"{checkpoint}.ckpt", trust=trust).model
    write_network(folder, network.state_dict(), results)
