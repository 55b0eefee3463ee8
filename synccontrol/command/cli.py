"""The drawing command: flags -> config -> one library call -> files."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from synccontrol.config import MIDDLE, SamplingConfig, SyncConfig, WindowConfig, flags
from synccontrol.errors import ConfigError
from synccontrol.terminal import DONE, Parser, status

CONFIGS = {"sampling": SamplingConfig, "windows": WindowConfig, "sync": SyncConfig}
ITEM_FAILED = 1  # the other statuses are those of `terminal`


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser; the flags of sampling, windows and sync come from the config classes."""
    parser = Parser(
        prog="synccontrol",
        allow_abbrev=False,
        description="Makes one coherent wide picture that follows a guide.",
        epilog="Settings without a default here take the model's own; --dry-run shows them.",
    )
    what = parser.add_argument_group("what to draw")
    what.add_argument("--guide", type=Path, help="picture, folder of pictures, or JSONL manifest")
    what.add_argument("--control", action="append", default=[], help="control type; repeat it for several at once")
    what.add_argument(
        "--control-map",
        type=Path,
        action="append",
        default=[],
        help="ready-made control map, one per --control; for pose also OpenPose JSON",
    )
    what.add_argument("--prompt", default="", help="what to draw")
    what.add_argument("--negative-prompt", default="", help="what to avoid")
    what.add_argument("--width", type=int, help="pixels (default: the guide's aspect)")
    what.add_argument("--height", type=int, help="pixels (default: the model's native height)")
    what.add_argument(
        "--fit",
        default="exact",
        help="how a guide or control map of another aspect comes onto the canvas: exact (an error), crop, pad, stretch "
        "(default: exact)",
    )
    what.add_argument("--seed", type=int, default=0, help="of all noise (default: 0)")
    what.add_argument(
        "--settings", type=Path, help="PNG made by this program, or JSON: its settings become the defaults"
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model", default="tiny", help="preset, diffusers folder or hub id (default: tiny, bundled)")
    model.add_argument("--controlnet", action="append", default=[], help="folder or hub id, one per --control")
    model.add_argument("--detector", action="append", default=[], help="what makes the control map, one per --control")
    model.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    model.add_argument("--dtype", default="auto", help="float32, float16, bfloat16 (default: float16 on cuda)")
    model.add_argument("--offline", action="store_true", help="never use the network")
    for name, config in CONFIGS.items():
        group = parser.add_argument_group(name)
        for flag, field in flags(config).items():
            _add_option(group, flag, field)
    output = parser.add_argument_group("output")
    output.add_argument("--output", type=Path, default=Path("out"), help="folder, or PNG file (default: out)")
    output.add_argument("--overwrite", action="store_true", help="replace outputs that exist; else they are kept")
    output.add_argument("--save-control-map", action="store_true", help="write the control maps beside the picture")
    output.add_argument("--dry-run", action="store_true", help="say what would be done, and what it costs")
    output.add_argument("--quiet", action="store_true", help="no progress bar, no notes")
    return parser


def _add_option(group: argparse._ArgumentGroup, flag: str, field: dataclasses.Field[Any]) -> None:
    text = f"{field.metadata['help']} (published: {field.default})"
    if isinstance(field.default, bool):
        group.add_argument(f"--{flag}", action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    choices = field.metadata["choices"]
    options: dict[str, Any] = {"type": type(field.default), "metavar": flag.split("-")[-1].upper()}
    if choices:
        text = f"{field.metadata['help']}: {', '.join(choices)} (published: {field.default})"
    if field.name.startswith("control_"):
        options["nargs"] = "+"
    if field.default == MIDDLE:
        options["type"] = _anchor
    group.add_argument(f"--{flag}", help=text, **options)


def _anchor(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


def _config(kind: str, default: Any, values: dict[str, Any]) -> Any:
    """Returns a config: the model's default, changed by the flags that were given."""
    changes = {}
    for flag, field in flags(CONFIGS[kind]).items():
        value = values[flag.replace("-", "_")]
        if value is None:
            continue
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else tuple(value)
        if flag == "anchor" and isinstance(value, str) and value != MIDDLE:
            from synccontrol.files.images import open_image

            value = open_image(Path(value))
        changes[field.name] = value
    return dataclasses.replace(default, **changes)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    first = parser.parse_args(argv)
    if first.settings is None:
        return first
    from synccontrol.files.metadata import read_settings

    known = vars(first)
    stored = {key: value for key, value in read_settings(first.settings).items() if key in known and value is not None}
    for key in ("guide", "output"):
        if key in stored:
            stored[key] = Path(stored[key])
    stored["control_map"] = [Path(path) for path in stored.get("control_map", [])]
    repeatable = [key for key, value in known.items() if isinstance(value, list) and value]
    parser.set_defaults(**{key: value for key, value in stored.items() if key not in repeatable})
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Returns the exit status of one run."""
    if args.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from synccontrol.jobs import batch, forecast, runtime
    from synccontrol.models import hub, presets

    _check_request(args)
    defaults = hub.defaults(args.model, args.offline)
    configs = {kind: _config(kind, getattr(defaults, kind), vars(args)) for kind in CONFIGS}
    jobs = batch.plan(args.guide, args.prompt, args.negative_prompt, args.seed, args.output)
    many = args.guide is not None and (args.guide.is_dir() or args.guide.suffix == ".jsonl")
    kept = [job for job in jobs if many and job.output.exists() and not args.overwrite]
    jobs = [job for job in jobs if job not in kept]
    note: Callable[[str], None] = (lambda _: None) if args.quiet else (lambda text: print(text, file=sys.stderr))
    if kept:
        note(f"{len(kept)} outputs exist and are kept; --overwrite makes them again")
    if not jobs:
        return DONE
    batch.check_writable(jobs[0], args.overwrite)
    request = runtime.Request(
        model=args.model,
        controls=tuple(args.control),
        controlnets=tuple(args.controlnet),
        detectors=tuple(args.detector),
        device=args.device,
        dtype=args.dtype,
        offline=args.offline,
    )
    hub.controlnet_sources(args.model, args.control, args.controlnet)  # fails before detectors are downloaded
    recipe = batch.Recipe(
        control_maps=tuple(args.control_map),
        detectors=runtime.detectors(request, configs["windows"].closed) if not args.control_map else [],
        width=args.width,
        height=args.height,
        fit=args.fit,
        outside=runtime.outside(request),
        settings=_settings(args, request),
        save_control_maps=args.save_control_map,
        **configs,
    )
    if args.dry_run:
        print("\n".join(forecast.forecast(request, jobs, recipe)))
        return DONE
    if not many:
        batch.check(jobs[0], recipe, hub.geometry(args.model, args.offline))
    montage = runtime.load(request)
    note(f"{args.model}: {presets.about(args.model)}")  # not earlier: bad input is one line
    return _draw(montage, jobs, recipe, many, args.quiet)


def _settings(args: argparse.Namespace, request: Any) -> dict[str, Any]:
    """Returns what a picture's settings hold besides the configs."""
    settings = {**request.settings(), "control_map": [str(path) for path in args.control_map], "fit": args.fit}
    if args.anchor is not None:
        settings["anchor"] = args.anchor
    return settings


def _check_request(args: argparse.Namespace) -> None:
    """Raises `ConfigError` for flags that make no sense together."""
    if args.guide is not None and not args.control:
        import preprocess

        raise ConfigError(f"--guide needs --control, one of {', '.join(preprocess.names())}")
    if args.control and args.guide is None and not args.control_map:
        raise ConfigError("--control needs a --guide to follow, or a ready-made --control-map")
    for control, path in zip(args.control, args.control_map, strict=False):
        if path.suffix.lower() == ".json" and control != "pose":
            raise ConfigError(f"{path} is no control map for {control}: only pose is read from JSON; give a picture")
    for flag in ("controlnet", "detector", "control_map"):
        given = len(getattr(args, flag))
        if given and given != len(args.control):
            raise ConfigError(
                f"{given} --{flag.replace('_', '-')} for {len(args.control)} --control; give one for each"
            )


def _draw(montage: Any, jobs: Sequence[Any], recipe: Any, many: bool, quiet: bool) -> int:
    from tqdm import tqdm

    from synccontrol.jobs import batch

    def make_one(job: Any) -> None:
        with tqdm(total=recipe.sampling.steps, desc=job.output.name, disable=quiet, leave=False) as bar:
            note = batch.silent if quiet else lambda text: bar.write(f"{job.output}: {text}", file=sys.stderr)
            batch.make(montage, job, recipe, lambda _: bar.update(), note)
        print(job.output)

    if not many:
        make_one(jobs[0])
        return DONE
    failed = batch.run(jobs, make_one, lambda job, error: print(f"error: {job.guide}: {error}", file=sys.stderr))
    if failed:
        print(f"error: {failed} of {len(jobs)} pictures failed; the others are done", file=sys.stderr)
    return ITEM_FAILED if failed else DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 an item failed, 2 bad usage or input."""
    return status(lambda: run(_parse(argv)), "interrupted; pictures that are written stay")
