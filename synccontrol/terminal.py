"""What the command lines have in common: every error is one line, and the exit status says of what kind it is."""

import argparse
import io
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from synccontrol.errors import ConfigError, SyncControlError

DONE, ITEM_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser for which bad usage is an error like every other. Raises `ConfigError`."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def printable(text: str) -> str:
    """Returns a text as one line: what cannot be printed, as it may stand in a file's name, is written as its code."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def describe(error: Exception) -> str:
    """Returns an error as one line: our own as they are, others with their type."""
    if isinstance(error, SyncControlError):
        return printable(str(error))
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}{': ' if text else ''}{text} (python -X dev shows where)"


def status(command: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Returns a command's exit status: its own; 2 when it raises, 130 on Ctrl+C, having said in one line why.

    Args:
        command: parses, runs, and returns the status; None is 0.
        interrupted: what to say on Ctrl+C.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of the libraries below; -W shows them
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names come out byte by byte as they are
    try:
        return command() or DONE
    except KeyboardInterrupt:
        print(f"error: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if sys.flags.dev_mode and not isinstance(error, SyncControlError):
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        return BAD_INPUT
