"""Options of commands without configuration groups, `key=value` in Hydra's syntax."""

import sys
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

T = TypeVar("T")


def parse_options(options: type[T], usage: str | None, arguments: Sequence[str] | None = None) -> T:
    """Parses `key=value` arguments into a dataclass, with values of the types of its fields; `--help` prints the usage.

    Args:
        options: dataclass; a field with the default `omegaconf.MISSING` is required.
        usage: docstring of the script, which describes the options.
        arguments: by default those of the command line.

    Raises:
        SystemExit: after printing the usage, or with a message if a key is unknown or missing, or a value has the wrong type.
    """
    arguments, config = sys.argv[1:] if arguments is None else arguments, OmegaConf.structured(options)
    if {"-h", "--help"} & set(arguments):
        print(usage)
        raise SystemExit(0)
    try:
        for override in OverridesParser.create().parse_overrides(list(arguments)):
            OmegaConf.update(config, override.get_key_element(), cast(Any, override.value()))
    except (HydraException, OmegaConfBaseException) as error:
        raise SystemExit(f"{str(error).splitlines()[0]}\n\n{usage}") from None
    if missing := OmegaConf.missing_keys(config):
        raise SystemExit(f"expected {', '.join(f'{key}=…' for key in sorted(missing))}\n\n{usage}")
    return cast(T, OmegaConf.to_object(config))
