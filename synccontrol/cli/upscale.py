"""`synccontrol upscale`: enlarge a finished image and denoise it again, with its own settings if it has some."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synccontrol.cli import parser as flags
from synccontrol.cli.terminal import COMMANDS, DONE, Parser, status
from synccontrol.errors import InputError
from synccontrol.spec.image_settings import DEFAULT, defaults, image_flags
from synccontrol.spec.image_spec import mapped_controls
from synccontrol.spec.region import Region
from synccontrol.spec.settings import COLOR_MATCHES, MATCH_SOURCE, MAX_UPSCALE_PER_STAGE, UPSCALE_FACTORS, UpscaleConfig

TILE = "tile"  # the control type whose map is an image of which colours and shapes are kept


def build_parser(prog: str = "synccontrol upscale") -> argparse.ArgumentParser:
    """Return the parser of this command's own arguments; all other flags are those of generation."""
    parser = Parser(
        prog=prog,
        allow_abbrev=False,
        description=f"{COMMANDS['upscale'].about.capitalize()}. A PNG made by this program brings its prompt, model\n"
        "and controls; for other images name them. All flags of generation may follow.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", type=flags.path, help="the image")
    parser.add_argument(
        "--by", type=int, choices=UPSCALE_FACTORS[1:], default=MAX_UPSCALE_PER_STAGE, help="factor (default: 2)"
    )
    strength = UpscaleConfig().upscale_strength
    parser.add_argument("--strength", type=float, default=strength, help=f"img2img strength (default: {strength})")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "synccontrol upscale") -> int:
    """Return the exit status of the generation."""
    from synccontrol.cli import main

    words: list[str] = []

    def translate() -> int:
        arguments, parser = sys.argv[1:] if argv is None else list(argv), build_parser(prog)
        if arguments and arguments[0].startswith("-") and not {"-h", "--help"} & set(arguments):
            parser.error("the image comes first")  # else the value of a flag of generation would be taken for it
        own, others = parser.parse_known_args(arguments)
        given = vars(flags.build_parser(prog).parse_args(others))
        words.extend([*_generation_flags(own.image, own.by, own.strength, given), *others])
        return DONE

    return status(translate) or main.main(words, prog)


def _generation_flags(image: Path, by: int, strength: float, given: Mapping[str, Any]) -> list[str]:
    """Return the flags of generation: img2img from the image at twice its size, then upscaling by the rest.

    `given` holds the flags of generation that follow.

    Raises:
        InputError: the file is no image.
    """
    from synccontrol.io.images import open_image

    width, height = open_image(image).size
    stored = _stored(image)
    size = ["--width", str(MAX_UPSCALE_PER_STAGE * width), "--height", str(MAX_UPSCALE_PER_STAGE * height)]
    words = ["--init-image", str(image), *size, "--strength", f"{strength:g}"]
    words += ["--upscale", str(by // MAX_UPSCALE_PER_STAGE), "--upscale-strength", f"{strength:g}"]
    for flag in (flag for flag in image_flags() if flag.setting.choices == COLOR_MATCHES):
        words += [] if flag.key in given else [f"--{flag.name}", MATCH_SOURCE]
    if stored:
        words += ["--settings", str(image)]
    for line in stored.get("region") or ():  # in pixels of the smaller image
        region = Region.parse(line).relative(stored["height"], stored["width"])
        words += ["--region", str(region)]
    if stored.get("region") and stored.get("region_map"):
        words += ["--region-map", stored["region_map"]]
    own = stored.get("model", defaults()["model"])
    if stored and given.get("model", own) != own and "preset" not in given:
        words += ["--preset", DEFAULT]  # steps, strides and the like belong to a model
    words += _controls(image, stored, given)
    if "output" not in given:
        words += ["--output", str(Path("out") / f"{image.stem}-{by}x.png")]
    return words


def _stored(image: Path) -> Mapping[str, Any]:
    from synccontrol.io import metadata

    try:
        return metadata.read_settings(image)
    except InputError:
        return {}


def _controls(image: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the flags of the controls, if they differ from those recorded in the image.

    The tile ControlNet is added if the named model has one. ControlNets and detectors that were named for another
    model are left out.
    """
    from synccontrol.models import registry

    own = stored.get("model", defaults()["model"])
    model, controls = given.get("model", own), list(stored.get("control") or ())
    known = registry.PRESETS.get(model)
    tile = known is not None and TILE in known.controlnets and TILE not in controls
    if "control" in given or not (tile or (controls and model != own)):
        return []
    words = [word for control in (*controls, *([TILE] if tile else ())) for word in ("--control", control)]
    maps = zip(mapped_controls(controls), stored.get("control_map") or (), strict=False)
    words += [word for control, path in maps if path for word in ("--control-map", f"{control}={path}")]
    words += ["--guide", stored["guide"]] if stored.get("guide") else []
    return [*words, *(["--control-map", f"{TILE}={image}"] if tile else ())]
