"""The command line: options of commands without configuration groups, `key=value` in Hydra's syntax, and how errors are told."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException

P = ParamSpec("P")
T = TypeVar("T")
PACKAGE = Path(__file__).parents[1]
#: what the checks of the package raise; others, such as an AssertionError, are faults of a program
REFUSALS = (ValueError, TypeError, OSError, RuntimeError, FloatingPointError, ImportError)


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


def brief_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Makes a command end with one line on stderr, `error: …`, and status 1 where the package refuses a value.

    All other errors keep their traceback, and with `HYDRA_FULL_ERROR=1` in the environment these do too.

    Args:
        command: function of the command, below `hydra.main` if it has that.

    Raises:
        SystemExit: with the message of the check that refused a value.

    Examples:
        >>> from escnn_attn.arguments import require_integer
        >>> brief_errors(require_integer)("epochs", 0)
        Traceback (most recent call last):
        SystemExit: error: epochs must be at least 1, got 0
    """

    @wraps(command)
    def brief(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            if (found := refusal(error)) is None:
                raise
            raise SystemExit(f"error: {found}") from None

    return brief


def refusal(error: BaseException) -> Exception | None:
    """The error by which the package refused a value, without what Hydra wraps around it; None if the traceback is to be shown."""
    if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
        return None
    while isinstance(error, InstantiationException | OmegaConfBaseException):
        if isinstance(error, MissingMandatoryValue):
            return ValueError(f"expected {error.full_key}=…")
        if (inner := error.__cause__ or error.__context__) is None:
            return None
        error = inner
    if isinstance(error, MisconfigurationException):  # Lightning's own, such as of an accelerator that is not there
        return error
    return error if isinstance(error, REFUSALS) and (_refused(error) or _of_a_file(error) or _not_called(error)) else None


def _refused(error: Exception) -> bool:
    """Whether a `raise` of the package made the error: an operation that failed, of the package or of torch, is none."""
    places = traceback.extract_tb(error.__traceback__)
    return bool(places) and PACKAGE in Path(places[-1].filename).parents and (places[-1].line or "").startswith("raise ")


def _not_called(error: Exception) -> bool:
    """Whether an object of the configuration does not take its arguments: Hydra's call itself failed, and nothing within."""
    places = traceback.extract_tb(error.__traceback__)
    return isinstance(error, TypeError) and bool(places) and places[-1].name == "_call_target"


def _of_a_file(error: Exception) -> bool:
    """Whether the system names a file, such as one that is not there or may not be written."""
    return isinstance(error, OSError) and error.filename is not None
