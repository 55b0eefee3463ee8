"""The commands beside drawing: `synccontrol NAME ...`, a line each."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command: a module that holds `main(argv, prog) -> int` and `build_parser(prog)`, and what it is for."""

    module: str
    about: str

    def load(self) -> Any:
        """Returns the module, loaded."""
        return import_module(self.module)


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "map": Command("synccontrol.command.map", "shows the control map of a guide, and draws nothing"),
        "upscale": Command("synccontrol.command.upscale", "enlarges a finished picture and draws over it"),
        "evaluate": Command("synccontrol.evaluate.__main__", "scores folders of montages"),
        "doctor": Command("synccontrol.command.doctor", "says what is installed, and which models would fit here"),
        "app": Command("synccontrol.app.__main__", "serves the page on which wide pictures are composed"),
        "completion": Command("synccontrol.command.completion", "prints what completes flags and names in a shell"),
    }
)


def overview() -> str:
    """Returns the commands in lines, for help."""
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(f"  {name:{width}}{command.about}" for name, command in COMMANDS.items())
