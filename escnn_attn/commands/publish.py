"""Exports the weights of a finished run: python scripts/publish.py run=outputs/… folder=weights/mine

Options:
    run: folder of the run.
    folder: to write to.
    checkpoint: last (averaged weights of the last epoch) or best.
    trust: names of modules and layers of your own in it, such as [my_package.MyBlock].
    hub: user/name, a repository of the Hugging Face Hub to upload the folder to, with a model card; needs escnn-attn[hub].
    private: whether a new repository is private.
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from escnn_attn.pretrained import read_config
from escnn_attn.pretrained.hub import require_hub, require_repository, upload, write_card
from escnn_attn.training import brief_errors, parse_options, publish


@dataclass
class Options:
    run: Path = MISSING
    folder: Path = MISSING
    checkpoint: str = "last"
    trust: list[str] = field(default_factory=list)
    hub: str | None = None
    private: bool | None = None


@brief_errors
def main() -> None:
    options = parse_options(Options, __doc__)
    if options.hub is not None:
        require_hub(require_repository(options.hub))
    publish(options.run, options.folder, options.checkpoint, trust=options.trust)
    if options.hub is not None:
        write_card(options.folder, options.hub, read_config(options.folder))
        print(upload(options.folder, options.hub, private=options.private))
