"""Parsers, commands and exit statuses of the command line; every error is one line."""

import argparse
import io
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from synccontrol.errors import ConfigError, SyncControlError, describe
from synccontrol.spec.schema import nearest

DONE, ITEM_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser that raises `ConfigError` for bad usage.

    Attributes:
        renamed: earlier names of flags -> today's, without dashes. Earlier ones work, with a note.
    """

    renamed: Mapping[str, str] = MappingProxyType({})

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: --([\w-]+)", message)
        near = nearest(unknown[1], [name[2:] for name in self._option_string_actions]) if unknown else ""
        raise ConfigError(f"{message}; " + (f"did you mean --{near}?" if near else "see --help"))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args([self._todays(word) for word in words], namespace)

    def _todays(self, word: str) -> str:
        """Return a word of a command line with an earlier flag's name replaced by today's."""
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name[2:] not in self.renamed:
            return word
        new = f"--{self.renamed[name[2:]]}"
        print(f"note: {name} is called {new} now", file=sys.stderr)
        return f"{new}{equals}{value}"


def status(command: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Run a command and return its exit status: its own, 2 if it raises, 130 on Ctrl+C; an error is one line.

    Args:
        command: parses, runs, and returns the status; None is 0.
        interrupted: the error on Ctrl+C.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of the libraries below; -W shows them
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names are printed byte by byte
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


class Command(NamedTuple):
    """A command: a module with `main(argv, prog) -> int` and `build_parser(prog)`, and its description."""

    module: str
    about: str

    def load(self) -> Any:
        """Return the loaded module."""
        return import_module(self.module)


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "map": Command("synccontrol.cli.map", "writes the control map of a guide"),
        "upscale": Command("synccontrol.cli.upscale", "enlarges a finished image and denoises it again"),
        "evaluate": Command("synccontrol.cli.evaluate", "scores folders of montages"),
        "doctor": Command("synccontrol.cli.doctor", "lists what is installed, and which models fit this machine"),
        "app": Command("synccontrol.studio.__main__", "serves the page in the browser"),
        "completion": Command("synccontrol.cli.completion", "prints the completion of flags and names for a shell"),
    }
)


def overview() -> str:
    """Return the commands in lines, for --help."""
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(f"  {name:{width}}{command.about}" for name, command in COMMANDS.items())
