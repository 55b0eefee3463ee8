"""What the page loads beside its model: LoRAs, an IP-Adapter, autoencoders; visitors say how strong they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synccontrol.checks import require_number
from synccontrol.extras import Extras

LORA, IP_ADAPTER, IP_SCALE, CONTROLNET = "lora", "ip_adapter", "ip_scale", "controlnet"
DECODING = ("vae", "tiny_vae")
NAMING = (LORA, IP_ADAPTER, *DECODING)  # settings that name files, folders or hub ids
STRONGEST = 10.0  # weight of a LoRA, either way
PLAIN = Extras()


def bare(source: str) -> str:
    """Returns a source as visitors see it: of files and folders of this machine the name alone, with its weight."""
    ((found, _),) = Extras(lora=(source,)).loras
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


def weights(extras: Extras) -> dict[str, tuple[str, float]]:
    """Returns what each LoRA is called, and its weight, by the name of its field."""
    return {f"{LORA}{place}": (bare(source), weight) for place, (source, weight) in enumerate(extras.loras)}


def given(values: Mapping[str, Any], reference: Path | None, extras: Extras) -> dict[str, Any]:
    """Returns what is loaded, as flags.

    Args:
        values: of the fields, by name; where there are none, weights are those of `extras`.
        reference: what the IP-Adapter is shown; None: it is not loaded.
        extras: what there is.

    Raises:
        ConfigError: a weight is no number in its range.
    """
    found: dict[str, Any] = {name: source for name in DECODING if (source := getattr(extras, name))}
    loras = []
    for (source, _), (field, (name, weight)) in zip(extras.loras, weights(extras).items(), strict=True):
        asked = weight if values.get(field) is None else values[field]
        require_number(f"the weight of {name}", asked, -STRONGEST, STRONGEST)
        loras.append(f"{source}:{asked:g}")
    if loras:
        found[LORA] = loras
    if extras.ip_adapter and reference is not None:
        found |= {IP_ADAPTER: extras.ip_adapter, "ip_image": reference}
        scale = values.get(IP_SCALE)
        found |= {} if scale is None or scale == PLAIN.ip_scale else {IP_SCALE: scale}
    return found


def restored(values: Mapping[str, Any], extras: Extras) -> tuple[dict[str, float], list[str]]:
    """Returns how strong a picture had what is loaded here, by field, and which settings of its own are not to be had.

    Args:
        values: the settings of a picture; what they name is compared, and never looked for.
        extras: what there is.
    """
    found, other = dict[str, float](), list[str]()
    was = Extras(lora=tuple(values.get(LORA, ()))).loras
    if not was or _same([source for source, _ in was], [source for source, _ in extras.loras]):
        found |= {field: was[place][1] if was else 0.0 for place, field in enumerate(weights(extras))}
    else:
        other.append(LORA)
    if values.get(IP_ADAPTER):
        if _same([values[IP_ADAPTER]], [extras.ip_adapter]):
            found[IP_SCALE] = values.get(IP_SCALE, PLAIN.ip_scale)
        else:
            other += [IP_ADAPTER, IP_SCALE]
    other += [name for name in DECODING if values.get(name) and not _same([values[name]], [getattr(extras, name)])]
    return found, other + [CONTROLNET] * bool(values.get(CONTROLNET))


def _same(asked: list[str], loaded: list[str]) -> bool:
    pairs = zip(asked, loaded, strict=False)
    return len(asked) == len(loaded) and all(one in (other, bare(other)) for one, other in pairs)
