"""`synccontrol completion`: what a shell needs to complete flags, files and names. Source: shtab, MIT."""

import argparse
import sys
from collections.abc import Sequence

import shtab

from synccontrol import preprocess
from synccontrol.cli.parser import build_parser as drawing_parser
from synccontrol.cli.terminal import COMMANDS, DONE, Parser, status
from synccontrol.models.registry import PRESETS
from synccontrol.spec.settings import FITS

PROGRAM = "synccontrol"
SHELLS = ("bash", "zsh", "fish")
DIRECTORIES = {"folders", "output", "reference", "guides"}
HOW = 'bash: eval "$(synccontrol completion bash)" in ~/.bashrc; zsh: likewise in ~/.zshrc, after compinit'


def build_parser(prog: str = f"{PROGRAM} completion") -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = Parser(prog=prog, allow_abbrev=False, description=COMMANDS["completion"].about, epilog=HOW)
    parser.add_argument("shell", choices=SHELLS, help="whose completion to print")
    return parser


def whole() -> argparse.ArgumentParser:
    """Returns one parser of drawing and of all commands, which knows the names that flags take."""
    parser = _told(drawing_parser(PROGRAM))
    commands = parser.add_subparsers()
    for name, command in COMMANDS.items():
        own = _told(command.load().build_parser(f"{PROGRAM} {name}"))
        commands.add_parser(name, parents=[own], add_help=False, help=command.about)
    return parser


def _told(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Returns a parser whose flags know the names that they take, or that they take files."""
    controls = preprocess.names()
    detectors = {detector for control in controls for detector in preprocess.detectors(control)}
    names = {"model": list(PRESETS), "control": controls, "detector": sorted(detectors), "fit": list(FITS)}
    for action in parser._actions:
        if action.dest in names:
            action.choices = names[action.dest]
        elif getattr(action.type, "__name__", "") in ("Path", "path"):
            action.complete = shtab.DIRECTORY if action.dest in DIRECTORIES else shtab.FILE  # type: ignore[attr-defined]
    return parser


def main(argv: Sequence[str] | None = None, prog: str = f"{PROGRAM} completion") -> int:
    """Returns the exit status: 0 done, 2 bad usage."""

    def run() -> int:
        print(shtab.complete(whole(), build_parser(prog).parse_args(argv).shell))
        return DONE

    return status(run)


if __name__ == "__main__":
    sys.exit(main())
