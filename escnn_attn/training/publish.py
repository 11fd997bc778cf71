"""Export of the weights of a finished run."""

import json
from pathlib import Path

from safetensors.torch import save_file

from escnn_attn.data._files import write_atomically
from escnn_attn.models.config import Trust
from escnn_attn.pretrained import checksum
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
    results = json.loads((run / "results.json").read_text())
    network = load_module(run / "checkpoints" / f"{checkpoint}.ckpt", trust=trust).model
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "model.safetensors", lambda temporary: save_file(weights, temporary))
    results["sha256"] = checksum(folder / "model.safetensors")
    write_atomically(folder / "config.json", lambda temporary: temporary.write_text(json.dumps(results, indent=1) + "\n"))
