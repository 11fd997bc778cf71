"""Networks that are saved with what they were made of, and loaded again, from a folder or from the Hugging Face Hub."""

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn
from typing_extensions import Self

from escnn_attn.models.config import Trust, build, described, name_of
from escnn_attn.pretrained import read_config, read_weights, resolve, write_network
from escnn_attn.pretrained.hub import require_hub, require_repository, upload, write_card


class PretrainedNetwork(nn.Module):
    """Base class of networks that are saved with their configuration, and loaded from a folder or from the Hugging Face Hub.

    All networks of this library are. Of another one a subclass defines the modules: its arguments are noted when it is made. Loading
    it needs its name as `trust`.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from escnn_attn import SteerableTransformer
        >>> network = SteerableTransformer("C4", channels=2, depth=1)
        >>> network.config
        {'_target_': 'escnn_attn.SteerableTransformer', 'group': 'C4', 'channels': 2, 'depth': 1}
        >>> folder = tempfile.mkdtemp()
        >>> network.save_pretrained(folder)
        >>> again = SteerableTransformer.from_pretrained(folder)
        >>> torch.equal(again.readout.weight, network.readout.weight)
        True
    """

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        network = super().__new__(cls)
        # as plain data: what was passed may not be pickled, and a copy, made without arguments, gets those of the original
        network.__dict__["_made"] = _call(cls, arguments, options)
        return network

    @property
    def config(self) -> dict[str, Any]:
        """The network as plain data, of which `models.build` makes another one.

        Raises:
            TypeError: if it was made of an object that plain data cannot stand for, such as a gspace or a lambda.
        """
        made = self.__dict__["_made"]
        if isinstance(made, str):
            raise TypeError(made)
        return copy.deepcopy(made)

    def reconfigure(self, **arguments: Any) -> None:
        """Notes arguments that the network would now have to be made with, as plain data: for methods that change it."""
        made = self.__dict__["_made"]
        if not isinstance(made, str):
            self.__dict__["_made"] = {**made, **arguments}

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        trust: Trust = (),
    ) -> Self:
        """A network with trained weights, in eval mode and the default dtype.

        Args:
            name: one of `escnn_attn.pretrained.available()`; or a folder with `config.json` and `model.safetensors`, as
                `save_pretrained` and `scripts/publish.py` write them; or `"user/name"`, a repository of the Hugging Face Hub with such
                files (needs the extra `hub`).
            revision: branch, tag or commit of the repository; None for the newest.
            cache_dir: where repositories are kept; None for the cache of `huggingface_hub`.
            token: of a private repository; None for that of `hf auth login`.
            trust: names that the folder or repository may import and call beside those that `models.build` trusts, such as
                `["my_package.MyBlock"]`, or the objects themselves.

        Raises:
            ValueError: if there is no such network, its configuration has targets that are not trusted, or its files are damaged.
            TypeError: if it is of another class.
            FileNotFoundError: if the folder has no `model.safetensors`.
            ImportError: if the name is that of a repository, and `huggingface_hub` is not installed.
            OSError: if the repository can be reached neither on the Hub nor in the cache.
        """
        folder = resolve(name, revision, cache_dir, token)
        network = build(read_config(folder)["model"], trust)
        if not isinstance(network, cls):
            raise TypeError(f"expected a {cls.__name__} in {folder}, got a {type(network).__name__}")
        network.load_state_dict(read_weights(folder))
        return network.eval()

    def save_pretrained(self, folder: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Writes weights, their checksum and the configuration to a folder that `from_pretrained` loads.

        Args:
            folder: created if it does not exist.
            facts: what else `config.json` tells, as JSON has it, such as `{"metric": "accuracy", "test": {"rotated": 0.98}}`.

        Raises:
            TypeError: as of `config`.
        """
        facts = {"parameters": sum(p.numel() for p in self.parameters()), **(facts or {})}
        write_network(Path(folder), self.state_dict(), {**facts, "model": self.config})

    def push_to_hub(
        self,
        name: str,
        *,
        facts: Mapping[str, Any] | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        message: str = "A network of escnn-attn",
    ) -> str:
        """Uploads what `save_pretrained` writes, and a model card, to the Hugging Face Hub. Needs the extra `hub`.

        Args:
            name: `"user/name"`, a repository, which is created if it does not exist.
            facts: as of `save_pretrained`; metrics are in the card too.
            private: whether a new repository is private; None for the default of the user.
            token: with the right to write; None for that of `hf auth login`.
            message: of the commit.

        Returns:
            the address of the repository.

        Raises:
            ImportError: if `huggingface_hub` is not installed.
            ValueError: if the name is not `"user/name"`.
            TypeError: as of `config`.
        """
        require_hub(require_repository(name))
        with TemporaryDirectory() as aside:
            folder = Path(aside)
            self.save_pretrained(folder, facts)
            write_card(folder, name, read_config(folder))
            return upload(folder, name, private=private, token=token, message=message)


def _call(cls: type, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any] | str:
    """A call as plain data, or a sentence that tells why there is none."""
    try:
        given = inspect.signature(cls).bind(*arguments, **options)
        if given.args[len(given.arguments) :]:
            raise TypeError("expected arguments with names")
        named: dict[str, Any] = {}
        for name, value in given.arguments.items():
            named |= value if given.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        return {"_target_": name_of(cls), **{name: described(value, name) for name, value in named.items()}}
    except TypeError as error:
        return f"a {cls.__name__} cannot be saved with its configuration: {error}"
