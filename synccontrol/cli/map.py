"""`synccontrol map`: write the control map of a guide, as an image with the same flags would follow it."""

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from synccontrol import preprocess
from synccontrol.cli import parser as flags
from synccontrol.cli.terminal import COMMANDS, DONE, ITEM_FAILED, Parser, status
from synccontrol.errors import ConfigError, SyncControlError, printable
from synccontrol.spec.image_settings import defaults as image_defaults

if TYPE_CHECKING:
    from PIL import Image

    from synccontrol.batch.job import Job, Recipe

DEFAULTS: Mapping[str, Any] = {**image_defaults(), "option": (), "loop": False}
Options = dict[str, dict[str, float | str | bool]]  # by control type


def build_parser(prog: str = "synccontrol map") -> argparse.ArgumentParser:
    """Return the parser. Its namespace holds the flags that were given and nothing else."""
    parser = Parser(
        prog=prog,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        description=f"{COMMANDS['map'].about.capitalize()}: as an image with the same flags would follow it,\n"
        "to look at, to edit, and to give as --control-map.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"options of detectors, with their defaults:\n{_all_options()}",
    )
    parser.add_argument("--guide", type=flags.path, required=True, help="image, folder of images, or quoted glob")
    parser.add_argument("--control", action="append", required=True, help="control type; repeat it for several")
    parser.add_argument("--detector", action="append", help="detector of the control map, one per --control")
    parser.add_argument(
        "--option",
        action="append",
        metavar="NAME=VALUE",
        help="option of the detector; canny.low=50 where controls share it",
    )
    parser.add_argument("--model", help="model whose height and detectors are used (default: tiny)")
    parser.add_argument("--width", type=int, help="pixels (default: the guide's aspect)")
    parser.add_argument("--height", type=int, help="pixels (default: the model's native height)")
    parser.add_argument("--fit", help="how a guide of another aspect is fitted to the canvas (default: exact)")
    parser.add_argument("--loop", action="store_true", help="the guide is a cylindrical panorama, and so is its map")
    parser.add_argument("--device", help="device of the detector (default: the fastest)")
    parser.add_argument("--offline", action="store_true", help="never use the network")
    parser.add_argument(
        "--output", type=flags.path, help="folder, or a.png for a.canny.png and the like (default: out)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing maps; else new ones get a number")
    parser.add_argument("--quiet", action="store_true", help="no notes")
    return parser


def _all_options() -> str:
    by_control = {control: preprocess.options(control) for control in preprocess.names()}
    return "\n".join(
        f"  {control:9} {', '.join(f'{name}={value}' for name, value in options.items())}"
        for control, options in by_control.items()
        if options
    )


def main(argv: Sequence[str] | None = None, prog: str = "synccontrol map") -> int:
    """Return the exit status: 0 done, 1 a map of several failed, 2 bad usage or input, 130 interrupted."""
    return status(lambda: _run({**DEFAULTS, **vars(build_parser(prog).parse_args(argv))}))


def options_of(texts: Sequence[str], controls: Sequence[str]) -> Options:
    """Return the options of each control from texts like low=50 or canny.low=50.

    Raises:
        ConfigError: none of the controls has such an option, or the value has another type.
    """
    chosen: Options = {control: {} for control in controls}
    for text in texts:
        name, equals, value = text.partition("=")
        owner, dot, option = name.rpartition(".")
        owners = [control for control in dict.fromkeys(controls) if option in preprocess.options(control)]
        owners = [control for control in owners if control == owner] if dot else owners
        if not equals or not owners:
            raise ConfigError(f"--option {text}: {', '.join(controls)} take {_takes(controls)}")
        for control in owners:
            chosen[control][option] = _value(value, preprocess.options(control)[option], text)
    return chosen


def _takes(controls: Sequence[str]) -> str:
    options = [f"{name}={value}" for control in controls for name, value in preprocess.options(control).items()]
    return ", ".join(dict.fromkeys(options)) or "no options"


def _value(text: str, default: float | str | bool, argument: str) -> float | str | bool:
    """Return a value of its default's type."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"--option {argument}: it is true or false")
        return text.lower() == "true"
    if isinstance(default, str):
        return text
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--option {argument}: it is a number, like {default}") from None


def _run(args: Mapping[str, Any]) -> int:
    if args["offline"]:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from synccontrol.batch import model_request, planner
    from synccontrol.io import atomic_write

    for control in args["control"]:
        model_request.check_control(control)
    options = options_of(args["option"], args["control"])
    template = _template(args)
    model_request.machine_of(template.recipe.request)
    if "," in args["device"]:
        raise ConfigError(f"a detector runs on one device, and --device names {args['device']}; name one")
    model_request.check_detectors(template.recipe.request, template.detected)
    jobs = planner.plan(template, _no_rows, save_maps=True)
    atomic_write.check_not_inputs(
        (path for job in jobs for path in job.map_outputs), (path for job in jobs for path in job.inputs)
    )
    writer, errors = _MapWriter(options, args["quiet"]), 0
    for job in jobs:
        try:
            writer.write(job)
        except SyncControlError as error:
            if len(jobs) == 1:
                raise
            errors += 1
            print(f"error: {printable(f'{job.guide}: {error.message}')}", file=sys.stderr)
    return ITEM_FAILED if errors else DONE


def _template(args: Mapping[str, Any]) -> "Job":
    from synccontrol.batch.job import Job, Recipe
    from synccontrol.batch.model_request import ModelRequest, own_detectors
    from synccontrol.models import loader

    defaults = loader.defaults(args["model"], args["preset"], args["offline"])
    controls = tuple(args["control"])
    request = ModelRequest(
        model=args["model"],
        controls=controls,
        controlnets=(),
        detectors=tuple(args["detector"]) or own_detectors(args["model"], controls),
        device=args["device"],
        offline=args["offline"],
    )
    recipe = Recipe(
        request=request,
        fit=args["fit"],
        sampling=defaults.sampling,
        windows=defaults.windows.replace(loop=args["loop"]),
        sync=defaults.sync,
    )
    sizes = {"width": args["width"], "height": args["height"]}
    return Job(
        guide=args["guide"], prompt="", negative_prompt="", seed=0, **sizes, output=args["output"], recipe=recipe
    )


def _no_rows(job: "Job", values: Mapping[str, Any]) -> "Job":
    raise ConfigError("a manifest describes images; give a guide, or a folder of them")


def _png(image: "Image.Image") -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class _MapWriter:
    """Writes the maps of jobs; each detector is loaded once."""

    def __init__(self, options: Options, quiet: bool) -> None:
        self._options, self._quiet = options, quiet
        from synccontrol.batch.model_request import Detectors

        self._loaded = Detectors()

    def write(self, job: "Job") -> None:
        """Write a job's maps and print their paths. Raises `SyncControlError` if that fails."""
        from synccontrol.batch import prepare
        from synccontrol.io import atomic_write, poses
        from synccontrol.models import loader

        geometry = loader.geometry(job.recipe.request.model, job.recipe.request.offline)
        canvas = prepare.prepare_canvas(job, geometry, self._note)
        maps = prepare.control_maps(job, canvas, geometry, self._detector)
        for text in prepare.remarks(maps, job.recipe):
            self._note(text)
        for path, control_map in zip(job.map_outputs, maps, strict=True):
            written = atomic_write.publish_numbered(path, _png(control_map), job.overwrite)
            poses.save(control_map, written.with_suffix(poses.SUFFIX), job.overwrite)
            print(written)

    def _note(self, text: str) -> None:
        if not self._quiet:
            print(text, file=sys.stderr)

    def _detector(self, recipe: "Recipe", control: str, name: str | None) -> preprocess.Detector:
        return self._loaded.load(recipe, control, name, **self._options[control])


if __name__ == "__main__":
    sys.exit(main())
