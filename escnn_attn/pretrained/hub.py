"""Networks on the Hugging Face Hub: a repository with the files of a folder. Needs the extra `hub`."""

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from escnn_attn.files import write_atomically

#: what a network consists of
FILES = ("config.json", "model.safetensors")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_repository(name: str | Path) -> bool:
    """Whether a name is that of a repository, `"user/name"`, and no folder here.

    Examples:
        >>> is_repository("user/name"), is_repository("user/name/part"), is_repository("./name")
        (True, False, False)
    """
    return isinstance(name, str) and REPOSITORY.fullmatch(name) is not None and not Path(name).is_dir()


def require_hub(name: str) -> Any:
    """The module `huggingface_hub`; an ImportError that tells how to install it, if it is not there."""
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise ImportError(
            f"{name!r} is no folder here, but may be on the Hugging Face Hub, which needs huggingface_hub: pip install "
            "'escnn-attn[hub]'"
        ) from None


def download(
    name: str, revision: str | None = None, cache_dir: str | Path | None = None, token: str | bool | None = None
) -> Path:
    """The folder, in the cache of the Hub, with the files of a repository.

    Args:
        name: `"user/name"`.
        revision: a branch, tag or commit; None for the newest.
        cache_dir: of the downloads; None for that of `huggingface_hub`.
        token: of a private repository; None for that of `hf auth login`.

    Raises:
        ImportError: without `huggingface_hub`.
        ValueError: if there is no such repository or revision, or it holds no network.
        OSError: if the Hub cannot be reached, and the repository is not in the cache.
    """
    hub = require_hub(name)
    options: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "token": token}
    described = f"{name!r}{'' if revision is None else f' at revision {revision!r}'}"
    missing = hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError, hub.errors.HFValidationError
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=list(FILES), **options))
    except missing as error:
        raise ValueError(
            f"expected a folder here, or a repository user/name of the Hugging Face Hub, got {described}: {error}"
        ) from error
    except OSError as error:
        raise OSError(f"{described} is no folder here, and could not be fetched from the Hugging Face Hub: {error}") from error
    lacking = [file for file in FILES if not (folder / file).is_file()]
    if lacking:
        raise ValueError(
            f"expected {' and '.join(FILES)} in the repository {described}, as push_to_hub writes them, got none named "
            f"{' or '.join(lacking)}"
        )
    return folder


def upload(
    folder: Path, name: str, *, private: bool | None = None, token: str | bool | None = None, message: str | None = None
) -> str:
    """Uploads weights, configuration and `README.md` of a folder to a repository, which is created if it does not exist.

    Returns:
        its address.

    Raises:
        ImportError: without `huggingface_hub`.
        ValueError: if the name is not `"user/name"`, or the folder lacks one of the files.
    """
    require_repository(name)
    api = require_hub(name).HfApi(token=token)
    files = [*FILES, "README.md"]
    if lacking := [file for file in files if not (folder / file).is_file()]:
        raise ValueError(f"expected {', '.join(files)} in {folder}, got none named {' or '.join(lacking)}")
    address = api.create_repo(name, private=private, exist_ok=True)
    api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=files, commit_message=message)
    return str(address)


def require_repository(name: str) -> str:
    """A name `"user/name"`, and a ValueError for anything else."""
    if not isinstance(name, str) or REPOSITORY.fullmatch(name) is None:
        raise ValueError(f"expected a repository 'user/name' of the Hugging Face Hub, got {name!r}")
    return name


def write_card(folder: Path, name: str, config: Mapping[str, Any]) -> None:
    """Writes the `README.md` of a repository, unless the folder has one."""
    if not (folder / "README.md").exists():
        write_atomically(folder / "README.md", lambda aside: aside.write_text(model_card(name, config)))


def model_card(name: str, config: Mapping[str, Any]) -> str:
    """The page of a repository: how the network is loaded, and what `config.json` says about it.

    Examples:
        >>> model = {"_target_": "escnn_attn.SteerableTransformer", "group": "C4"}
        >>> print(model_card("user/digits", {"model": model, "metric": "accuracy", "test": {"rotated": 0.98}}))
        ---
        library_name: escnn-attn
        tags: [escnn, equivariance, attention]
        ---
        # digits
        <BLANKLINE>
        An equivariant network, `escnn_attn.SteerableTransformer` on the group C4.
        <BLANKLINE>
        ```python
        from escnn_attn import SteerableTransformer
        <BLANKLINE>
        network = SteerableTransformer.from_pretrained("user/digits")
        ```
        <BLANKLINE>
        | | |
        |---|---|
        | accuracy, rotated | 0.98 |
        <BLANKLINE>
        `config.json` holds the configuration of the network, its training and its results, and the SHA-256 of the weights.
    """
    model = config["model"]
    home, _, kind = str(model["_target_"]).rpartition(".")
    trust = "" if home == "escnn_attn" else f", trust=[{kind}]"
    group = f" on the group {model['group']}" if isinstance(model.get("group"), str) else ""
    rows = "".join(f"| {label} | {value} |\n" for label, value in _facts(config))
    table = f"| | |\n|---|---|\n{rows}\n" if rows else ""
    return f"""---
library_name: escnn-attn
tags: [escnn, equivariance, attention]
---
# {name.partition("/")[2]}

An equivariant network, `{home}.{kind}`{group}.

```python
from {home} import {kind}

network = {kind}.from_pretrained("{name}"{trust})
```

{table}`config.json` holds the configuration of the network, its training and its results, and the SHA-256 of the weights.
"""


def _facts(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a configuration says in a few words: sizes, and the metric on each set."""
    metric, test = config.get("metric", "metric"), config.get("test")
    labels = {
        "parameters": "parameters",
        "samples": "training samples",
        "epochs": "epochs",
        "validation": f"{metric}, validation",
    }
    found = [(label, config[key]) for key, label in labels.items() if isinstance(config.get(key), int | float)]
    return found + [(f"{metric}, {name}", value) for name, value in (test if isinstance(test, dict) else {}).items()]
