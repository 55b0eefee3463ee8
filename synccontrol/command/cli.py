"""The drawing command: flags -> config -> one library call -> files."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from synccontrol.command import run, settings
from synccontrol.command.parser import PUBLISHED, build_parser
from synccontrol.config import record
from synccontrol.errors import SyncControlError
from synccontrol.terminal import DONE, Parser, status


def main(argv: Sequence[str] | None = None, prog: str = "synccontrol") -> int:
    """Returns the exit status: 0 done, 1 an item failed, 2 bad usage or input, 130 interrupted.

    Args:
        argv: the flags; the process's own by default.
        prog: how the program was called, for help.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    return status(lambda: _command(arguments, prog), "interrupted; pictures that are written stay")


def _command(argv: Sequence[str], prog: str) -> int:
    shown = _help_wanted(argv)
    if shown is not None:
        build_parser(prog, shown).print_help()
        return DONE
    values, stored = settings.merged(vars(build_parser(prog).parse_args(argv)))
    return run.run(argparse.Namespace(**values), stored, lambda seed: _again(argv, prog, seed))


def _again(argv: Sequence[str], prog: str, seed: int) -> str:
    """Returns the command that goes on with a run; a seed that was drawn is named."""
    words = [*prog.split(), *argv]
    drawn = [i for i, word in enumerate(words) if word in ("random", "--seed=random")]
    for i in drawn:
        if words[i] == "--seed=random":
            words[i] = f"--seed={seed}"
        elif words[i - 1] == "--seed":
            words[i] = str(seed)
    return shlex.join(words)


def _help_wanted(argv: Sequence[str]) -> Mapping[str, Any] | None:
    """Returns the defaults that help is to show, those of the model that is named; None when no help is wanted."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--model", default="tiny")
    if not {"-h", "--help"} & set(argv):
        return None
    asked, _ = parser.parse_known_args(argv)
    from synccontrol.models import presets

    if asked.model in presets.PRESETS:  # at once; to look at a model takes torch and seconds
        defaults = presets.PRESETS[asked.model].defaults
    else:
        from synccontrol.models import hub

        try:
            defaults = hub.defaults(asked.model, offline=True)
        except SyncControlError:
            return PUBLISHED  # what a model without a preset runs with
    return record(defaults.sampling, defaults.windows, defaults.sync)
