"""From flags to the pictures that are wanted: jobs, with what they have in common."""

import dataclasses
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synccontrol.cli.settings_file import compose_of, enlarge_of, extras_of
from synccontrol.errors import ConfigError
from synccontrol.spec.image_settings import CONFIGS, image_flags
from synccontrol.spec.image_spec import followed
from synccontrol.spec.region import Region
from synccontrol.spec.schema import read_config
from synccontrol.spec.settings import LARGEST_SEED, MIDDLE, check_seed

if TYPE_CHECKING:
    from synccontrol.batch.job import Job, Recipe

RANDOM = "random"  # a seed that is drawn
FIRST = Path("first")  # the style image that is the run's first picture
FILES = ("ip_image", "region_map", "init_image", "mask")  # that all windows see
DRAWN_SEEDS = 2**32  # a seed that is drawn lies below; short enough to be typed again
MOST_SEEDS = 100_000
STRENGTHS = tuple(flag.key for flag in image_flags() if flag.setting.per_control)  # of controls
_OF_A_JOB = ("prompt", "negative_prompt", "seed", "width", "height")

Change = Callable[["Job", Mapping[str, Any]], "Job"]


def seeds(args: Mapping[str, Any]) -> list[int]:
    """Returns the seeds that are asked for. Raises `ConfigError` for flags that exclude each other, or none at all."""
    first, listed, count = args["seed"], args["seeds"], args["count"]
    if listed is not None and count is not None:
        raise ConfigError("--seeds and --count exclude each other: name the seeds, or how many there are from --seed")
    if listed is not None:
        return _listed(listed)
    if count is not None and not 1 <= count <= MOST_SEEDS:
        raise ConfigError(f"--count is {count}; it must be between 1 and {MOST_SEEDS}")
    if first == RANDOM:
        first = secrets.randbelow(DRAWN_SEEDS)
    check_seed(first)
    check_seed(first + (count or 1) - 1)
    return list(range(first, first + (count or 1)))


def _listed(text: str) -> list[int]:
    """Returns the seeds of a text like 0-9,12."""
    found: dict[int, None] = {}
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
        if not low <= high < low + MOST_SEEDS - len(found):
            raise ConfigError(f"--seeds {text}: a range goes up, and there are at most {MOST_SEEDS} seeds")
        found |= dict.fromkeys(range(low, high + 1))
    return list(found)


def template(args: Mapping[str, Any], seed: int) -> "Job":
    """Returns what all pictures of the run have in common. Raises `SyncControlError` for flags that make no sense."""
    from synccontrol.batch.job import Job

    _check(args)
    return Job(
        guide=args["guide"],
        control_maps=_control_maps(followed(args["control"]), args["control_map"]),
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
    """Returns what makes a job of another one with the settings of a row, which change the flags."""
    recipes: dict[str, Recipe] = {}

    def change(job: "Job", values: Mapping[str, Any]) -> "Job":
        own = {name: values[name] for name in _OF_A_JOB if name in values}
        others = {name: values[name] for name in values if name not in own}
        key = json.dumps(others, sort_keys=True)
        if key not in recipes:
            kept = {
                name: () if name in ("controlnet", "detector") and "control" in others else value
                for name, value in args.items()
                if not ("control" in others and name in STRENGTHS)
            }
            recipes[key] = _recipe({**kept, **others}) if others else job.recipe
        if not recipes[key].request.controls:
            raise ConfigError("no control says how the picture follows its image; name one here or with --control")
        return dataclasses.replace(job, **own, recipe=recipes[key])

    return change


def _check(args: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for flags that make no sense together."""
    controls, maps, guide = followed(args["control"]), args["control_map"], args["guide"]
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
    """Returns the ready-made map of each control, None where it is detected, of PATH for each or of TYPE=PATH."""
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
    """Returns a recipe: the model's defaults, changed by flags. Raises `SyncControlError` for a wrong value."""
    from synccontrol.batch.job import Recipe, check_settings
    from synccontrol.batch.model_request import ModelRequest, own_detectors
    from synccontrol.io.images import open_image
    from synccontrol.models import loader

    adapters, shown = extras_of(args), args["ip_image"]
    if (shown is None) == bool(adapters.ip_adapter):
        raise ConfigError("--ip-adapter and --ip-image belong together: what it is, and what it is shown; give both")
    request = ModelRequest(
        model=args["model"],
        controls=tuple(args["control"]),
        controlnets=tuple(args["controlnet"]),
        detectors=tuple(args["detector"]) or own_detectors(args["model"], followed(args["control"])),
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
        img2img=compose_of(args),
        upscale=enlarge_of(args),
        **files,
        **{kind: _config(kind, getattr(defaults, kind), args) for kind in CONFIGS},
    )
    if args["style_image"] is not None and not recipe.sync.active:
        raise ConfigError(
            "--style-image does nothing without sync; raise --sync-adain or --sync-weight, or leave it out"
        )
    for path in recipe.shown.values():
        open_image(path)
    loader.controlnet_sources(request.model, request.controls, request.controlnets, request.offline)
    check_settings(recipe, loader.geometry(request.model, request.offline))
    return recipe


def _anchor(args: Mapping[str, Any]) -> Path | None:
    """Returns the file that all windows follow, if it is one."""
    anchor, style = args.get("anchor"), args["style_image"]
    if style is not None and anchor not in (None, MIDDLE):
        raise ConfigError("--style-image and --anchor exclude each other: all windows follow one of them")
    if style not in (None, FIRST):
        return Path(style)
    return Path(anchor) if isinstance(anchor, str) and anchor != MIDDLE else None


def following_first(jobs: Sequence["Job"]) -> list["Job"]:
    """Returns the jobs of a run, all but the first with its picture for their anchor.

    Raises:
        ConfigError: there is one only, or one has an anchor of its own.
    """
    first, *others = jobs
    if not others:
        raise ConfigError("--style-image first is for several pictures, and this is one; name a picture")
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
