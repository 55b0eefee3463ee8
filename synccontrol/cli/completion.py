"""`synccontrol completion`: shell completion of flags, files and names, by shtab."""

import argparse
import sys
from collections.abc import Sequence

import shtab

from synccontrol import preprocess
from synccontrol.cli.parser import build_parser as generation_parser
from synccontrol.cli.terminal import COMMANDS, DONE, Parser, status
from synccontrol.models.registry import PRESETS
from synccontrol.spec.settings import FITS

PROGRAM = "synccontrol"
SHELLS = ("bash", "zsh", "fish")
DIRECTORIES = {"folders", "output", "reference", "guides"}
HOW = 'bash: eval "$(synccontrol completion bash)" in ~/.bashrc; zsh: likewise in ~/.zshrc, after compinit'


def build_parser(prog: str = f"{PROGRAM} completion") -> argparse.ArgumentParser:
    """Return the parser."""
    parser = Parser(prog=prog, allow_abbrev=False, description=COMMANDS["completion"].about, epilog=HOW)
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the completion")
    return parser


def whole() -> argparse.ArgumentParser:
    """Return one parser of generation and of all commands, with the values that can be completed."""
    parser = _with_values(generation_parser(PROGRAM))
    commands = parser.add_subparsers()
    for name, command in COMMANDS.items():
        own = _with_values(command.load().build_parser(f"{PROGRAM} {name}"))
        commands.add_parser(name, parents=[own], add_help=False, help=command.about)
    return parser


def _with_values(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Return the parser with the values of its flags: names, files or folders."""
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
    """Return the exit status: 0 done, 2 bad usage."""

    def run() -> int:
        print(shtab.complete(whole(), build_parser(prog).parse_args(argv).shell))
        return DONE

    return status(run)


if __name__ == "__main__":
    sys.exit(main())
