"""Build the jobs of a run from its flags."""

import dataclasses
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synccontrol.cli.settings_file import adapters_of, img2img_of, upscale_of
from synccontrol.errors import ConfigError
from synccontrol.spec.image_settings import CONFIGS, image_flags
from synccontrol.spec.image_spec import mapped_controls
from synccontrol.spec.region import Region
from synccontrol.spec.schema import read_config
from synccontrol.spec.settings import LARGEST_SEED, MIDDLE, check_seed

if TYPE_CHECKING:
    from synccontrol.batch.job import Job, Recipe

RANDOM = "random"  # a seed that is chosen at random
FIRST = Path("first")  # a style image: the first image of the run
FILES = ("ip_image", "region_map", "init_image", "mask")  # flags of files that recipes hold
RANDOM_SEEDS = 2**32  # a random seed lies below this: short enough to type again
MOST_SEEDS = 100_000
STRENGTHS = tuple(flag.key for flag in image_flags() if flag.setting.per_control)
_JOB_KEYS = ("prompt", "negative_prompt", "seed", "width", "height")

Change = Callable[["Job", Mapping[str, Any]], "Job"]


def seeds(args: Mapping[str, Any]) -> list[int]:
    """Return the requested seeds. Raises `ConfigError` for flags that exclude each other, or a wrong seed."""
    first, listed, count = args["seed"], args["seeds"], args["count"]
    if listed is not None and count is not None:
        raise ConfigError("--seeds and --count exclude each other: name the seeds, or how many there are from --seed")
    if listed is not None:
        return _listed(listed)
    if count is not None and not 1 <= count <= MOST_SEEDS:
        raise ConfigError(f"--count is {count}; it must be between 1 and {MOST_SEEDS}")
    if first == RANDOM:
        first = secrets.randbelow(RANDOM_SEEDS)
    check_seed(first)
    check_seed(first + (count or 1) - 1)
    return list(range(first, first + (count or 1)))


def _listed(text: str) -> list[int]:
    """Return the seeds of a text like 0-9,12."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last] if dash else [first]
        if not all(
            number.isascii() and number.isdecimal() and len(number) <= len(str(LARGEST_SEED)) for number in numbers
        ):
            raise ConfigError(f"--seeds is {text!r}; write seeds and ranges of seeds, like 0-9,12")
        low, high = int(numbers[0]), int(numbers[-1])
        check_seed(low)
        check_seed(high)
        if not low <= high < low + MOST_SEEDS - len(seeds):
            raise ConfigError(f"--seeds {text}: a range goes up, and there are at most {MOST_SEEDS} seeds")
        seeds |= dict.fromkeys(range(low, high + 1))
    return list(seeds)


def template(args: Mapping[str, Any], seed: int) -> "Job":
    """Return the template of the run's jobs. Raises `SyncControlError` for flags that contradict each other."""
    from synccontrol.batch.job import Job

    _check(args)
    return Job(
        guide=args["guide"],
        control_maps=_control_maps(mapped_controls(args["control"]), args["control_map"]),
        prompt=args["prompt"],
        negative_prompt=args["negative_prompt"],
        seed=seed,
        width=args["width"],
        height=args["height"],
        output=args["output"],
        overwrite=args["overwrite"],
        recipe=_recipe(args),
    )


def changer(args: Mapping[str, Any]) -> Change:
    """Return a function that changes a job by the settings of a manifest's row; they override the flags."""
    recipes: dict[str, Recipe] = {}

    def change(job: "Job", values: Mapping[str, Any]) -> "Job":
        own = {name: values[name] for name in _JOB_KEYS if name in values}
        others = {name: values[name] for name in values if name not in own}
        key = json.dumps(others, sort_keys=True)
        if key not in recipes:
            flags = {
                name: () if name in ("controlnet", "detector") and "control" in others else value
                for name, value in args.items()
                if not ("control" in others and name in STRENGTHS)
            }
            recipes[key] = _recipe({**flags, **others}) if others else job.recipe
        if not recipes[key].request.controls:
            raise ConfigError("no control says how the image follows its guide; name one here or with --control")
        return dataclasses.replace(job, **own, recipe=recipes[key])

    return change


def _check(args: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for flags that contradict each other."""
    controls, maps, guide = mapped_controls(args["control"]), args["control_map"], args["guide"]
    if guide is not None and not controls and not _is_manifest(guide):
        from synccontrol import preprocess

        raise ConfigError(f"--guide needs --control, one of {', '.join(preprocess.names())}")
    if controls and guide is None and not maps:
        raise ConfigError("--control needs a --guide to follow, or a ready-made --control-map")
    detected = _control_maps(controls, maps).count(None) if maps else len(controls)
    if maps and not detected:
        for flag, given in (("guide", guide is not None), ("detector", bool(args["detector"]))):
            if given:
                raise ConfigError(f"--{flag} and --control-map exclude each other: a ready-made map needs neither")
    if maps and detected and guide is None:
        raise ConfigError(f"{detected} of {len(controls)} --control have no --control-map, and no --guide to follow")
    count = len(args["detector"])
    if count and count != detected:
        raise ConfigError(f"{count} --detector for {detected} --control; give one for each")


def _is_manifest(guide: Path) -> bool:
    from synccontrol.io import manifest

    return guide.suffix.lower() in manifest.SUFFIXES


def _control_maps(controls: Sequence[str], given: Sequence[str | Path]) -> tuple[Path | None, ...]:
    """Return the ready-made map of each control, None where it is detected; `given` has PATH for each, or TYPE=PATH."""
    if not given:
        return ()
    named: list[tuple[str, str]] = []
    for text in map(str, given):
        control, equals, path = text.partition("=")
        named.append((control, path) if equals and control in controls else ("", text))
    if not any(control for control, _ in named):
        if len(given) != len(controls):
            raise ConfigError(
                f"{len(given)} --control-map for {len(controls)} --control; give one for each, or TYPE=PATH for some"
            )
        return tuple(Path(path) if path else None for _, path in named)
    maps: list[Path | None] = [None] * len(controls)
    for control, path in named:
        free = [place for place, name in enumerate(controls) if name == control and maps[place] is None]
        if not free or not path:
            raise ConfigError(
                f"--control-map {control}={path} is one too many; name one path for a control, or for each"
            )
        maps[free[0]] = Path(path)
    return tuple(maps)


def _recipe(args: Mapping[str, Any]) -> "Recipe":
    """Return the recipe: the model's defaults, changed by flags. Raises `SyncControlError` for a wrong value."""
    from synccontrol.batch.job import Recipe, check_settings
    from synccontrol.batch.model_request import ModelRequest, own_detectors
    from synccontrol.io.images import open_image
    from synccontrol.models import loader

    adapters = adapters_of(args)
    if (args["ip_image"] is None) == bool(adapters.ip_adapter):
        raise ConfigError(
            "--ip-adapter and --ip-image belong together: the adapter, and the image that it sees; give both"
        )
    request = ModelRequest(
        model=args["model"],
        controls=tuple(args["control"]),
        controlnets=tuple(args["controlnet"]),
        detectors=tuple(args["detector"]) or own_detectors(args["model"], mapped_controls(args["control"])),
        adapters=adapters,
        device=args["device"],
        dtype=args["dtype"],
        offload=args["offload"],
        offline=args["offline"],
    )
    defaults = loader.defaults(request.model, args["preset"], request.offline)
    anchor = _anchor(args)
    files: dict[str, Any] = {name: Path(args[name]) for name in FILES if args[name] is not None}
    recipe = Recipe(
        request=request,
        fit=args["fit"],
        anchor=anchor,
        regions=tuple(Region.parse(line) for line in args["region"]),
        img2img=img2img_of(args),
        upscale=upscale_of(args),
        **files,
        **{kind: _config(kind, getattr(defaults, kind), args) for kind in CONFIGS},
    )
    if args["style_image"] is not None and not recipe.sync.active:
        raise ConfigError(
            "--style-image does nothing without sync; raise --sync-adain or --sync-weight, or leave it out"
        )
    for path in recipe.images.values():
        open_image(path)
    loader.controlnet_sources(request.model, request.controls, request.controlnets, request.offline)
    check_settings(recipe, loader.geometry(request.model, request.offline))
    return recipe


def _anchor(args: Mapping[str, Any]) -> Path | None:
    """Return the file of the anchor image; None if the anchor is a window."""
    anchor, style = args.get("anchor"), args["style_image"]
    if style is not None and anchor not in (None, MIDDLE):
        raise ConfigError("--style-image and --anchor exclude each other: all windows follow one of them")
    if style not in (None, FIRST):
        return Path(style)
    return Path(anchor) if isinstance(anchor, str) and anchor != MIDDLE else None


def following_first(jobs: Sequence["Job"]) -> list["Job"]:
    """Return the jobs of a run; the anchor of all but the first is the first job's image.

    Raises:
        ConfigError: there is one job only, or a job has an anchor of its own.
    """
    first, *others = jobs
    if not others:
        raise ConfigError("--style-image first is for several images, and this is one; name an image file")
    if any(job.recipe.anchor is not None for job in jobs):
        raise ConfigError("--style-image first and an anchor in a row exclude each other; leave one out")
    return [
        first,
        *(dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, anchor=first.output)) for job in others),
    ]


def _config(kind: str, default: Any, values: Mapping[str, Any]) -> Any:
    """Return a config: the model's default, changed by the flags that were given."""
    changes = {}
    for name, value in read_config(CONFIGS[kind], values).items():
        if name == "anchor" and isinstance(value, str) and value != MIDDLE:
            continue
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else tuple(value)
        changes[name] = value
    return default.replace(**changes)
