"""Contents of checkpoints."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from escnn_attn.data._files import require_whole_checkpoint
from escnn_attn.pretrained import require_finite


def read_checkpoint(checkpoint: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint, of plain types and tensors alone; its exceptions are those of `load_module`."""
    require_whole_checkpoint(checkpoint)
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, UnpicklingError) as error:
        raise ValueError(f"expected a checkpoint in {checkpoint}, got what torch does not load as one: {error}") from None
    found = isinstance(stored, dict) and isinstance(stored.get("hyper_parameters"), dict)
    if not found:
        raise ValueError(f"expected a checkpoint of a SupervisedModule in {checkpoint}, got one without hyper_parameters")
    require_finite(stored.get("state_dict", {}), Path(checkpoint))
    return stored
