"""From a finished run to weights that ship."""

import json
from pathlib import Path

from safetensors.torch import save_file

from escnn_attn.data._files import write_aside
from escnn_attn.training.base import load_learner


def publish(run: Path, folder: Path, checkpoint: str = "last") -> None:
    """Writes the network of a run as `escnn_attn.pretrained.load_pretrained` reads it, each file aside and then renamed.

    Args:
        run: folder with `results.json` and checkpoints.
        folder: which is made.
        checkpoint: name of the one to take.

    Raises:
        FileNotFoundError: if the run has no such checkpoint, or no results.
    """
    results = json.loads((run / "results.json").read_text())
    network = load_learner(run / "checkpoints" / f"{checkpoint}.ckpt").model
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_aside(folder / "model.safetensors", lambda aside: save_file(weights, aside))
    write_aside(folder / "config.json", lambda aside: aside.write_text(json.dumps(results, indent=1) + "\n"))
