"""Between the values of the page's form and flags of the command line; the adapters that the page loads."""

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
from synccontrol.spec.image_spec import mapped_controls
from synccontrol.spec.schema import Flag, flag_of, flags, record, require_number, words_of
from synccontrol.spec.settings import MIDDLE, Adapters, Img2ImgConfig, UpscaleConfig

LORA, IP_ADAPTER, IP_SCALE, CONTROLNET = "lora", "ip_adapter", "ip_scale", "controlnet"
DECODING = ("vae", "tiny_vae")
NAMING = (LORA, IP_ADAPTER, *DECODING)  # settings that name files, folders or hub ids
MAX_LORA_WEIGHT = 10.0  # weight of a LoRA, either way
PLAIN = Adapters()


def short_name(source: str) -> str:
    """Return a source as users of the page see it: files and folders of this machine by name alone."""
    ((path, _),) = Adapters(lora=(source,)).loras
    is_local = Path(path).is_absolute() or Path(path).exists()
    return Path(path).name + source.removeprefix(path) if is_local else source


def with_short_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings, or flags, in which adapters have their short names."""
    renamed = dict(settings)
    for name in NAMING:
        value = renamed.get(name)
        if value:
            renamed[name] = short_name(value) if isinstance(value, str) else [short_name(source) for source in value]
    return renamed


def weights(adapters: Adapters) -> dict[str, tuple[str, float]]:
    """Return the short name and the weight of each LoRA, by the name of its field."""
    return {f"{LORA}{place}": (short_name(source), weight) for place, (source, weight) in enumerate(adapters.loras)}


def adapter_flags(values: Mapping[str, Any], reference: Path | None, adapters: Adapters) -> dict[str, Any]:
    """Return the flags of the adapters.

    Args:
        values: of the fields, by name; a weight without a value is that of `adapters`.
        reference: the image for the IP-Adapter; None: the adapter is not loaded.
        adapters: the adapters of the page.

    Raises:
        ConfigError: a weight is no number in its range.
    """
    adapter_values: dict[str, Any] = {name: source for name in DECODING if (source := getattr(adapters, name))}
    loras = []
    for (source, _), (field, (name, weight)) in zip(adapters.loras, weights(adapters).items(), strict=True):
        requested = weight if values.get(field) is None else values[field]
        require_number(f"the weight of {name}", requested, -MAX_LORA_WEIGHT, MAX_LORA_WEIGHT)
        loras.append(f"{source}:{requested:g}")
    if loras:
        adapter_values[LORA] = loras
    if adapters.ip_adapter and reference is not None:
        adapter_values |= {IP_ADAPTER: adapters.ip_adapter, "ip_image": reference}
        scale = values.get(IP_SCALE)
        adapter_values |= {} if scale is None or scale == PLAIN.ip_scale else {IP_SCALE: scale}
    return adapter_values


def recorded_strengths(values: Mapping[str, Any], adapters: Adapters) -> tuple[dict[str, float], list[str]]:
    """Return the recorded strengths of the page's adapters, by field, and the settings of adapters that it lacks.

    Args:
        values: settings of an image; files that they name are compared, and never opened.
        adapters: the adapters of the page.
    """
    strengths, missing = dict[str, float](), list[str]()
    recorded = Adapters(lora=tuple(values.get(LORA, ()))).loras
    if not recorded or _same([source for source, _ in recorded], [source for source, _ in adapters.loras]):
        strengths |= {field: recorded[place][1] if recorded else 0.0 for place, field in enumerate(weights(adapters))}
    else:
        missing.append(LORA)
    if values.get(IP_ADAPTER):
        if _same([values[IP_ADAPTER]], [adapters.ip_adapter]):
            strengths[IP_SCALE] = values.get(IP_SCALE, PLAIN.ip_scale)
        else:
            missing += [IP_ADAPTER, IP_SCALE]
    missing += [name for name in DECODING if values.get(name) and not _same([values[name]], [getattr(adapters, name)])]
    return strengths, missing + [CONTROLNET] * bool(values.get(CONTROLNET))


def _same(recorded: list[str], loaded: list[str]) -> bool:
    pairs = zip(recorded, loaded, strict=False)
    return len(recorded) == len(loaded) and all(source in (own, short_name(own)) for source, own in pairs)


MACHINE = ("device", "dtype", "offload", "offline")  # flags of the server, not of the form
FIELDS = [flag for flag in all_flags().values() if flag.setting.column and not flag.setting.file]
DECLARED = [flag for flag in FIELDS if flag.field in ImageSettings.model_fields or flag.key == "preset"]
TEXTS = tuple(flag.key for flag in DECLARED if flag.scalar is str and not flag.is_list)
LISTS = tuple(flag.key for flag in DECLARED if flag.is_list and flag.key != CONTROLNET)
NUMBERS = tuple(flag.key for flag in DECLARED if flag.scalar is int)
IMG2IMG: Mapping[str, Flag] = {flag.key: flag for flag in flags(Img2ImgConfig).values()}
UPSCALING: Mapping[str, Flag] = {flag.key: flag for flag in flags(UpscaleConfig).values()}
SETTINGS: Mapping[str, Flag] = {
    **{flag.key: flag for config in CONFIGS.values() for flag in flags(config).values()},
    **IMG2IMG,
    **UPSCALING,
}
STRENGTH = "strength"  # 0 in the form means the default
MAP = "map"  # file name of a map that is detected with options
NAMES = (*TEXTS, *LISTS, *NUMBERS, *SETTINGS)


def setting(name: str, value: object) -> Any:
    """Return a value of the form as its flag has it; None: the preset's.

    Raises:
        ConfigError: the value has the wrong type.
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
    """Return the flags of the form's values; values of the preset and defaults are left out.

    Args:
        values: of the fields, by name.
        preset: the settings of the preset, as `schema.record`.

    Raises:
        ConfigError: a value has the wrong type.
    """
    given: dict[str, Any] = {}
    for name in TEXTS:
        text = str(values.get(name) or "")
        if text != (defaults()[name] or "") and text:
            given[name] = text
    for name in LISTS:
        if values.get(name):
            given[name] = [str(item) for item in values[name]]
    for name in NUMBERS:
        number = setting_number(name, values.get(name))
        if number is not None and number != defaults()[name]:
            given[name] = number
    for name in SETTINGS:
        value = setting(name, values.get(name))
        if value is not None and _alike(value) != _alike(preset[name]):
            given[name] = value
    return given


def setting_number(name: str, value: object) -> int | None:
    """Return a size or seed; None if it is not given. Raises `ConfigError` for a value that is no whole number."""
    if value in (None, "") or (name != "seed" and value == 0):
        return None
    number: int = _number(name, value, int)
    return number


def _alike(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def job(given: Mapping[str, Any], machine: Mapping[str, Any], output: Path) -> Job:
    """Return the job of some flags. Raises `SyncControlError` for flags that contradict each other.

    Args:
        given: flags, files by their path.
        machine: the flags in `MACHINE`.
        output: path of the image.
    """
    kinds = " and ".join(mapped_controls(given.get("control", ())))
    if kinds and not (given.get("guide") or given.get("control_map")):
        raise ConfigError(f"{kinds} has no guide to follow: open or sketch one, or choose no control")
    args = {**defaults(), **machine, **given, "output": output}
    return template(args, args["seed"])


def command(given: Mapping[str, Any]) -> str:
    """Return the command that generates the same image; files are named without their folders."""
    words = ["synccontrol"]
    for name, value in with_short_names(given).items():
        flag = f"--{flag_of(name)}"
        if name in SETTINGS and len(SETTINGS[name].setting.words) > 1:
            words += [flag, *str(value).split()]
        elif isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif name in SETTINGS and isinstance(value, list):
            words += [flag, *map(str, value)]
        else:
            items = value if isinstance(value, list) else [value]
            words += [word for item in items for word in _flag(flag, item)]
    return shlex.join(words)


def map_command(given: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the command, with a line break, that makes the maps of detectors with changed options.

    Args:
        given: flags of the image.
        options: of detectors, by control.
    """
    own: dict[str, Any] = {name: given[name] for name in ("model", "width", "height", "fit", "loop") if name in given}
    changed = [f"{control}.{name}={value}" for control, values in options.items() for name, value in values.items()]
    flags_ = {**own, "guide": given["guide"], "control": list(options), "option": changed, "output": f"{MAP}.png"}
    return command(flags_).replace("synccontrol", "synccontrol map", 1) + "\n"


def _flag(flag: str, value: object) -> Sequence[str]:
    text = _named(value)
    return [f"{flag}={text}"] if text.startswith("-") or not text else [flag, text]


def _named(value: object) -> str:
    """Return a value as in a command; files by name alone, also in TYPE=PATH."""
    if isinstance(value, Path):
        return value.name
    kind, equals, path = str(value).partition("=/")
    return f"{kind}={Path(path).name}" if equals else str(value)


def preset_values(defaults: Any) -> dict[str, Any]:
    """Return the settings of a preset (`models.presets.PresetSettings`) by key, as JSON values."""
    values = record(defaults.sampling, defaults.windows, defaults.sync, Img2ImgConfig(), UpscaleConfig())
    return {**values, "tall_canvas": None}  # the command line chooses it by the preset


FILES = ("guide", "control_map", "ip_image", "region_map", "init_image", "mask")  # which users upload again


def restored(
    path: Path, models: Collection[str], detectors: Collection[str], adapters: Adapters = Adapters()
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of an image or of JSON by field, and notes about those that are left out.

    Args:
        path: the uploaded file.
        models: the models of the page.
        detectors: names of detectors; folders and hub ids are refused.
        adapters: the adapters of the page.

    Raises:
        InputError: the file has no settings, or one of them is wrong.
    """
    everything = metadata.read_settings(path)
    values = image_spec.recorded_settings(everything)
    notes = []
    for name in (name for name in FILES if values.get(name)):
        paths = values[name] if isinstance(values[name], list) else [values[name]]
        file_names = ", ".join(Path(path).name for path in paths if path)
        if file_names:
            notes.append(f"{words_of(name)} {file_names}: files are not opened by their name; upload it again")
    if "model" in values and values["model"] not in models:
        notes.append(f"model {values.pop('model')} is not on offer here: the chosen one stays")
    unknown = [name for name in values.get("detector", ()) if name not in detectors]
    if unknown:
        notes.append(f"detector {', '.join(unknown)} is not on offer here: the default is used")
        del values["detector"]
    anchor = values.get("anchor", MIDDLE)
    if isinstance(anchor, str) and anchor != MIDDLE:
        notes.append("the anchor was a file, which is not opened by its name: the middle window is the anchor")
        values["anchor"] = MIDDLE
    strengths, missing = recorded_strengths(values, adapters)
    if missing:
        notes.append(f"{', '.join(missing)}: this page loads none of them, so the image will differ")
    unused = sorted(set(everything) - image_spec.recorded_keys() - set(provenance.KEYS))
    if unused:
        notes.append(f"{', '.join(unused)}: no settings of an image, and left out")
    return {name: values[name] for name in NAMES if name in values} | strengths, notes
