"""`synccontrol upscale`: a finished picture enlarged and drawn over, by its own settings where it has some."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synccontrol.cli import parser as flags
from synccontrol.cli.terminal import COMMANDS, DONE, Parser, status
from synccontrol.errors import InputError
from synccontrol.spec.image_settings import DEFAULT, defaults, image_flags
from synccontrol.spec.image_spec import followed
from synccontrol.spec.region import Region
from synccontrol.spec.settings import AT_ONCE, COLOR_MATCHES, KEPT, TIMES, UpscaleConfig

TILE = "tile"  # the control type that holds a picture's colours and shapes


def build_parser(prog: str = "synccontrol upscale") -> argparse.ArgumentParser:
    """Returns the parser of what is this command's own; all other flags are those of drawing."""
    parser = Parser(
        prog=prog,
        allow_abbrev=False,
        description=f"{COMMANDS['upscale'].about.capitalize()}. A PNG made by this program brings its prompt, model\n"
        "and controls; for others name them. All flags of drawing may follow.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("picture", type=flags.path, help="the picture")
    parser.add_argument("--by", type=int, choices=TIMES[1:], default=AT_ONCE, help="times (default: 2)")
    strength = UpscaleConfig().upscale_strength
    parser.add_argument(
        "--strength", type=float, default=strength, help=f"how far it is drawn anew (default: {strength})"
    )
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "synccontrol upscale") -> int:
    """Returns the exit status of drawing."""
    from synccontrol.cli import main

    words: list[str] = []

    def translate() -> int:
        asked, parser = sys.argv[1:] if argv is None else list(argv), build_parser(prog)
        if asked and asked[0].startswith("-") and not {"-h", "--help"} & set(asked):
            parser.error("the picture comes first")  # or the value of a flag of drawing would be taken for it
        own, others = parser.parse_known_args(asked)
        given = vars(flags.build_parser(prog).parse_args(others))
        words.extend([*_drawing(own.picture, own.by, own.strength, given), *others])
        return DONE

    return status(translate) or main.main(words, prog)


def _drawing(picture: Path, by: int, strength: float, given: Mapping[str, Any]) -> list[str]:
    """Returns the flags of drawing: start from the picture at twice its size, and then perhaps once more.

    `given` holds the flags of drawing that follow.

    Raises:
        InputError: it is no picture.
    """
    from synccontrol.io.images import open_image

    width, height = open_image(picture).size
    stored = _stored(picture)
    size = ["--width", str(AT_ONCE * width), "--height", str(AT_ONCE * height)]
    words = ["--init-image", str(picture), *size, "--strength", f"{strength:g}"]
    words += ["--upscale", str(by // AT_ONCE), "--upscale-strength", f"{strength:g}"]
    for flag in (flag for flag in image_flags() if flag.setting.choices == COLOR_MATCHES):
        words += [] if flag.key in given else [f"--{flag.name}", KEPT]
    if stored:
        words += ["--settings", str(picture)]
    for line in stored.get("region") or ():  # pixels of the picture before are others now
        shown = Region.parse(line).relative(stored["height"], stored["width"])
        words += ["--region", str(shown)]
    if stored.get("region") and stored.get("region_map"):
        words += ["--region-map", stored["region_map"]]
    own = stored.get("model", defaults()["model"])
    if stored and given.get("model", own) != own and "preset" not in given:
        words += ["--preset", DEFAULT]  # steps, strides and the like are made for a model
    words += _controls(picture, stored, given)
    if "output" not in given:
        words += ["--output", str(Path("out") / f"{picture.stem}-{by}x.png")]
    return words


def _stored(picture: Path) -> Mapping[str, Any]:
    from synccontrol.io import metadata

    try:
        return metadata.read_settings(picture)
    except InputError:
        return {}


def _controls(picture: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Returns flags of the controls, where they are not just the picture's own.

    The tile ControlNet stands beside them where the model is a preset that has one, and ControlNets and detectors that
    were named for another model are not.
    """
    from synccontrol.models import registry

    own = stored.get("model", defaults()["model"])
    model, controls = given.get("model", own), list(stored.get("control") or ())
    known = registry.PRESETS.get(model)
    tile = known is not None and TILE in known.controlnets and TILE not in controls
    if "control" in given or not (tile or (controls and model != own)):
        return []
    words = [word for control in (*controls, *([TILE] if tile else ())) for word in ("--control", control)]
    maps = zip(followed(controls), stored.get("control_map") or (), strict=False)
    words += [word for control, path in maps if path for word in ("--control-map", f"{control}={path}")]
    words += ["--guide", stored["guide"]] if stored.get("guide") else []
    return [*words, *(["--control-map", f"{TILE}={picture}"] if tile else ())]
