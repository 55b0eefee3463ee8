"""What the command lines have in common: every error is one line, and the exit status is 2."""

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from synccontrol.errors import ConfigError, SyncControlError

DONE, BAD_INPUT = 0, 2


class Parser(argparse.ArgumentParser):
    """A parser for which bad usage is an error like every other. Raises `ConfigError`."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def status(command: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Returns a command's exit status; 2 when it raises, having said in one line why.

    Args:
        command: parses, runs, and returns the status; None is 0.
        interrupted: what to say on Ctrl+C.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of the libraries below; -W shows them
    try:
        return command() or DONE
    except SyncControlError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"error: {interrupted}", file=sys.stderr)
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        text = " ".join(str(error).split())
        print(f"error: unexpected {type(error).__name__}: {text} (python -X dev shows where)", file=sys.stderr)
    return BAD_INPUT
