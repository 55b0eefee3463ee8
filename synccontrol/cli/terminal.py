"""What the command lines have in common: every error is one line, and the exit status says of what kind it is."""

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
    """A parser for which bad usage is an error like every other. Raises `ConfigError`.

    Attributes:
        renamed: earlier names of flags, without dashes, and today's: they work, and one note says the new name.
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


class Command(NamedTuple):
    """A command: a module that holds `main(argv, prog) -> int` and `build_parser(prog)`, and what it is for."""

    module: str
    about: str

    def load(self) -> Any:
        """Returns the module, loaded."""
        return import_module(self.module)


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "map": Command("synccontrol.cli.map", "shows the control map of a guide, and draws nothing"),
        "upscale": Command("synccontrol.cli.upscale", "enlarges a finished picture and draws over it"),
        "evaluate": Command("synccontrol.cli.evaluate", "scores folders of montages"),
        "doctor": Command("synccontrol.cli.doctor", "says what is installed, and which models would fit here"),
        "app": Command("synccontrol.studio.__main__", "serves the page on which wide pictures are composed"),
        "completion": Command("synccontrol.cli.completion", "prints what completes flags and names in a shell"),
    }
)


def overview() -> str:
    """Returns the commands in lines, for help."""
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(f"  {name:{width}}{command.about}" for name, command in COMMANDS.items())
