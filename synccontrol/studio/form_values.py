"""What the page loads beside its model: LoRAs, an IP-Adapter, autoencoders; visitors say how strong they are."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from synccontrol.batch.job import Job
from synccontrol.cli.job_builder import template
from synccontrol.errors import ConfigError
from synccontrol.io import metadata, provenance
from synccontrol.spec import image_spec
from synccontrol.spec.image_settings import CONFIGS, ImageSettings, all_flags, defaults
from synccontrol.spec.image_spec import followed
from synccontrol.spec.schema import Flag, flag_of, flags, record, require_number, words_of
from synccontrol.spec.settings import MIDDLE, Adapters, Img2ImgConfig, UpscaleConfig

LORA, IP_ADAPTER, IP_SCALE, CONTROLNET = "lora", "ip_adapter", "ip_scale", "controlnet"
DECODING = ("vae", "tiny_vae")
NAMING = (LORA, IP_ADAPTER, *DECODING)  # settings that name files, folders or hub ids
STRONGEST = 10.0  # weight of a LoRA, either way
PLAIN = Adapters()


def bare(source: str) -> str:
    """Returns a source as visitors see it: of files and folders of this machine the name alone, with its weight."""
    ((found, _),) = Adapters(lora=(source,)).loras
    local = Path(found).is_absolute() or Path(found).exists()
    return Path(found).name + source.removeprefix(found) if local else source


def named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings, or flags, in which what is loaded stands by its bare name."""
    found = dict(settings)
    for name in NAMING:
        value = found.get(name)
        if value:
            found[name] = bare(value) if isinstance(value, str) else [bare(one) for one in value]
    return found


def weights(adapters: Adapters) -> dict[str, tuple[str, float]]:
    """Returns what each LoRA is called, and its weight, by the name of its field."""
    return {f"{LORA}{place}": (bare(source), weight) for place, (source, weight) in enumerate(adapters.loras)}


def adapter_flags(values: Mapping[str, Any], reference: Path | None, adapters: Adapters) -> dict[str, Any]:
    """Returns what is loaded, as flags.

    Args:
        values: of the fields, by name; where there are none, weights are those of `adapters`.
        reference: what the IP-Adapter is shown; None: it is not loaded.
        adapters: what there is.

    Raises:
        ConfigError: a weight is no number in its range.
    """
    found: dict[str, Any] = {name: source for name in DECODING if (source := getattr(adapters, name))}
    loras = []
    for (source, _), (field, (name, weight)) in zip(adapters.loras, weights(adapters).items(), strict=True):
        asked = weight if values.get(field) is None else values[field]
        require_number(f"the weight of {name}", asked, -STRONGEST, STRONGEST)
        loras.append(f"{source}:{asked:g}")
    if loras:
        found[LORA] = loras
    if adapters.ip_adapter and reference is not None:
        found |= {IP_ADAPTER: adapters.ip_adapter, "ip_image": reference}
        scale = values.get(IP_SCALE)
        found |= {} if scale is None or scale == PLAIN.ip_scale else {IP_SCALE: scale}
    return found


def restored_strengths(values: Mapping[str, Any], adapters: Adapters) -> tuple[dict[str, float], list[str]]:
    """Returns how strong a picture had what is loaded here, by field, and which settings of its own are not to be had.

    Args:
        values: the settings of a picture; what they name is compared, and never looked for.
        adapters: what there is.
    """
    found, other = dict[str, float](), list[str]()
    was = Adapters(lora=tuple(values.get(LORA, ()))).loras
    if not was or _same([source for source, _ in was], [source for source, _ in adapters.loras]):
        found |= {field: was[place][1] if was else 0.0 for place, field in enumerate(weights(adapters))}
    else:
        other.append(LORA)
    if values.get(IP_ADAPTER):
        if _same([values[IP_ADAPTER]], [adapters.ip_adapter]):
            found[IP_SCALE] = values.get(IP_SCALE, PLAIN.ip_scale)
        else:
            other += [IP_ADAPTER, IP_SCALE]
    other += [name for name in DECODING if values.get(name) and not _same([values[name]], [getattr(adapters, name)])]
    return found, other + [CONTROLNET] * bool(values.get(CONTROLNET))


def _same(asked: list[str], loaded: list[str]) -> bool:
    pairs = zip(asked, loaded, strict=False)
    return len(asked) == len(loaded) and all(one in (other, bare(other)) for one, other in pairs)


MACHINE = ("device", "dtype", "offload", "offline")  # flags of who runs the page, not of who visits it
FIELDS = [flag for flag in all_flags().values() if flag.setting.column and not flag.setting.file]
DECLARED = [flag for flag in FIELDS if flag.field in ImageSettings.model_fields or flag.key == "preset"]
TEXTS = tuple(flag.key for flag in DECLARED if flag.scalar is str and not flag.is_list)
LISTS = tuple(flag.key for flag in DECLARED if flag.is_list and flag.key != CONTROLNET)
NUMBERS = tuple(flag.key for flag in DECLARED if flag.scalar is int)
COMPOSING: Mapping[str, Flag] = {flag.key: flag for flag in flags(Img2ImgConfig).values()}
ENLARGING: Mapping[str, Flag] = {flag.key: flag for flag in flags(UpscaleConfig).values()}
SETTINGS: Mapping[str, Flag] = {
    **{flag.key: flag for config in CONFIGS.values() for flag in flags(config).values()},
    **COMPOSING,
    **ENLARGING,
}
STRENGTH = "strength"  # which 0 leaves open; which is two words on the command line
MAP = "map"  # what a map is called that is made before its picture
NAMES = (*TEXTS, *LISTS, *NUMBERS, *SETTINGS)


def setting(name: str, value: object) -> Any:
    """Returns the value of a setting as its flag has it, of what stands in the page; None: the preset's.

    Raises:
        ConfigError: it cannot be one.
    """
    field = SETTINGS[name]
    if value is None or value == "" or (name == STRENGTH and value == 0):
        return None
    if field.setting.per_control:
        words = value.replace(",", " ").split() if isinstance(value, str) else [value]
        return [_number(name, word, float) for word in words]
    if field.is_anchor:
        return value if value == MIDDLE else _number(name, value, int)
    if field.scalar is bool:
        return bool(value)
    if field.scalar in (int, float):
        return _number(name, value, field.scalar)
    return str(value)


def _number(name: str, value: object, kind: type) -> Any:
    try:
        number = float(str(value))
        if kind is int and not number.is_integer():
            raise ValueError
        return int(value) if isinstance(value, int) else kind(number)
    except (ValueError, OverflowError) as error:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{words_of(name)} is {value!r}; it must be {what}") from error


def flags_of(values: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flags that say what the page says, and no more: what is the preset's or a default is left out.

    Args:
        values: by the names of the page.
        preset: the settings of its preset, as `config.record`.

    Raises:
        ConfigError: a value cannot be one.
    """
    found: dict[str, Any] = {}
    for name in TEXTS:
        text = str(values.get(name) or "")
        if text != (defaults()[name] or "") and text:
            found[name] = text
    for name in LISTS:
        if values.get(name):
            found[name] = [str(one) for one in values[name]]
    for name in NUMBERS:
        number = setting_number(name, values.get(name))
        if number is not None and number != defaults()[name]:
            found[name] = number
    for name in SETTINGS:
        value = setting(name, values.get(name))
        if value is not None and _alike(value) != _alike(preset[name]):
            found[name] = value
    return found


def setting_number(name: str, value: object) -> int | None:
    """Returns a size or seed; None where nothing is asked for. Raises `ConfigError` for what is no whole number."""
    if value in (None, "") or (name != "seed" and value == 0):
        return None
    number: int = _number(name, value, int)
    return number


def _alike(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def job(given: Mapping[str, Any], machine: Mapping[str, Any], output: Path) -> Job:
    """Returns the job of some flags. Raises `SyncControlError` for flags that make no sense.

    Args:
        given: flags, files by their path.
        machine: the flags in `MACHINE`.
        output: the picture's path.
    """
    kinds = " and ".join(followed(given.get("control", ())))
    if kinds and not (given.get("guide") or given.get("control_map")):
        raise ConfigError(f"{kinds} has no guide to follow: open or sketch one, or choose no control")
    args = {**defaults(), **machine, **given, "output": output}
    return template(args, args["seed"])


def command(given: Mapping[str, Any]) -> str:
    """Returns the command line that makes the same picture; files stand by their name alone."""
    words = ["synccontrol"]
    for name, value in named(given).items():
        flag = f"--{flag_of(name)}"
        if name in SETTINGS and len(SETTINGS[name].setting.words) > 1:
            words += [flag, *str(value).split()]
        elif isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif name in SETTINGS and isinstance(value, list):
            words += [flag, *map(str, value)]
        else:
            words += [word for one in (value if isinstance(value, list) else [value]) for word in _flag(flag, one)]
    return shlex.join(words)


def map_command(given: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the command, and a line break, that makes the maps of detectors with options of their own.

    Args:
        given: flags of the picture.
        options: by control.
    """
    own: dict[str, Any] = {name: given[name] for name in ("model", "width", "height", "fit", "loop") if name in given}
    told = [f"{control}.{name}={value}" for control, values in options.items() for name, value in values.items()]
    flags_ = {**own, "guide": given["guide"], "control": list(options), "option": told, "output": f"{MAP}.png"}
    return command(flags_).replace("synccontrol", "synccontrol map", 1) + "\n"


def _flag(flag: str, value: object) -> Sequence[str]:
    text = _named(value)
    return [f"{flag}={text}"] if text.startswith("-") or not text else [flag, text]


def _named(value: object) -> str:
    """Returns a value as it stands in a command; of files the name, also in TYPE=PATH."""
    if isinstance(value, Path):
        return value.name
    kind, equals, path = str(value).partition("=/")
    return f"{kind}={Path(path).name}" if equals else str(value)


def preset_values(defaults: Any) -> dict[str, Any]:
    """Returns the settings of a preset (`models.defaults.Defaults`) by flag, as JSON values."""
    found = record(defaults.sampling, defaults.windows, defaults.sync, Img2ImgConfig(), UpscaleConfig())
    return {**found, "tall_canvas": None}  # which the command line chooses by the preset


FILES = ("guide", "control_map", "ip_image", "region_map", "init_image", "mask")  # which a visitor hands over anew


def restored(
    path: Path, models: Collection[str], detectors: Collection[str], adapters: Adapters = Adapters()
) -> tuple[dict[str, Any], list[str]]:
    """Returns the settings of a picture or of JSON by the names of the page, and what is said of the others.

    Args:
        path: what was handed over.
        models: those on offer.
        detectors: by name; a folder or hub id is none.
        adapters: what is loaded into the model on offer.

    Raises:
        InputError: it has no settings, or one of them is wrong.
    """
    everything = metadata.read_settings(path)
    values = image_spec.of_picture(everything)
    notes = []
    for name in (name for name in FILES if values.get(name)):
        found = values[name] if isinstance(values[name], list) else [values[name]]
        named = ", ".join(Path(one).name for one in found if one)
        if named:
            notes.append(f"{name.replace('_', ' ')} {named}: files are not opened by their name; hand it over again")
    if "model" in values and values["model"] not in models:
        notes.append(f"model {values.pop('model')} is not on offer here: the one that is chosen stays")
    unknown = [name for name in values.get("detector", ()) if name not in detectors]
    if unknown:
        notes.append(f"detector {', '.join(unknown)} is not on offer here: the default is used")
        del values["detector"]
    anchor = values.get("anchor", MIDDLE)
    if isinstance(anchor, str) and anchor != MIDDLE:
        notes.append("the anchor was a file, which is not opened by its name: the middle window is followed")
        values["anchor"] = MIDDLE
    strong, left = restored_strengths(values, adapters)
    if left:
        notes.append(f"{', '.join(left)}: this page loads none of them, so the picture will differ")
    unused = sorted(set(everything) - image_spec.recorded_keys() - set(provenance.KEYS))
    if unused:
        notes.append(f"{', '.join(unused)}: no settings of a picture, and left out")
    return {name: values[name] for name in NAMES if name in values} | strong, notes
