"""The command line: generation (flags to one run), or one of `COMMANDS`."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from synccontrol.cli.parser import EXAMPLES, PUBLISHED, build_parser
from synccontrol.cli.terminal import BAD_INPUT, COMMANDS, DONE, Parser, status
from synccontrol.errors import ConfigError, SyncControlError
from synccontrol.models import registry
from synccontrol.models.presets import PresetSettings, preset_variants, select_preset
from synccontrol.spec.image_settings import DEFAULT
from synccontrol.spec.schema import nearest
from synccontrol.spec.settings import record


def main(argv: Sequence[str] | None = None, prog: str = "synccontrol") -> int:
    """Return the exit status: 0 done, 1 an item failed, 2 bad usage or input, 130 interrupted.

    Args:
        argv: the flags; the process's own by default.
        prog: how the program was called, for help.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    name = arguments[0] if arguments else "-"
    if name in COMMANDS:
        ended: int = COMMANDS[name].load().main(arguments[1:], f"{prog} {name}")
        return ended
    return status(lambda: _command(arguments, prog), "interrupted; finished images stay")


def _command(argv: Sequence[str], prog: str) -> int:
    if not argv:
        lines = [f"usage: {prog} --control TYPE --guide IMAGE --prompt TEXT [more flags]; {prog} --help lists all", ""]
        print("\n".join([*lines, *(f"  {example}" for example in EXAMPLES)]), file=sys.stderr)
        return BAD_INPUT
    if not argv[0].startswith("-"):
        near = nearest(argv[0], COMMANDS)
        guess = f"did you mean {near}? " if near else ""
        raise ConfigError(
            f"there is no command {argv[0]!r}; {guess}use {', '.join(COMMANDS)}, or flags alone to generate an image"
        )
    help_defaults = _help_defaults(argv)
    if help_defaults is not None:
        build_parser(prog, help_defaults).print_help()
        return DONE
    given = vars(build_parser(prog).parse_args(argv))
    if given.pop("list_models", False):
        from synccontrol.models import listing

        print("\n".join(listing.model_lines()))
        return DONE
    from synccontrol.cli import generate, settings_file

    values, stored = settings_file.merged(given)
    return generate.run(argparse.Namespace(**values), stored, lambda seed: _again(argv, prog, seed), list(given))


def _again(argv: Sequence[str], prog: str, seed: int) -> str:
    """Return the command that resumes a run; a random seed is replaced by its number."""
    words = [*prog.split(), *argv]
    random_seeds = [i for i, word in enumerate(words) if word in ("random", "--seed=random")]
    for i in random_seeds:
        if words[i] == "--seed=random":
            words[i] = f"--seed={seed}"
        elif words[i - 1] == "--seed":
            words[i] = str(seed)
    return shlex.join(words)


def _help_defaults(argv: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the defaults that --help shows, those of the named model; None without --help."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--preset", default=DEFAULT)
    if not {"-h", "--help"} & set(argv):
        return None
    args, _ = parser.parse_known_args(argv)
    try:
        defaults = _defaults(args.model, args.preset)
    except SyncControlError:
        return PUBLISHED  # the model or the preset is not available here
    return record(defaults.sampling, defaults.windows, defaults.sync)


def _defaults(model: str, preset: str) -> PresetSettings:
    if model in registry.PRESETS:  # without torch, which takes seconds to load
        known = registry.PRESETS[model]
        return select_preset(preset_variants(known.defaults, known.geometry), preset)
    from synccontrol.models import loader

    return loader.defaults(model, preset, offline=True)
