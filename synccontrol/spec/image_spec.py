"""`ImageSpec`: everything that decides one image, as plain data, and its form as JSON values."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from synccontrol.errors import ConfigError
from synccontrol.spec.image_settings import IMAGE_CLASSES, image_flags
from synccontrol.spec.region import Region
from synccontrol.spec.schema import flag_of, read_config, record, today, words_of
from synccontrol.spec.settings import (
    EQUIRECTANGULAR,
    FITS,
    MIDDLE,
    OBJECTIVES,
    ROWS,
    Adapters,
    Img2ImgConfig,
    SamplingConfig,
    SyncConfig,
    UpscaleConfig,
    WindowConfig,
    check_seed,
)

IN_MEMORY = "<picture>"  # recorded in place of a path for an image in memory
EMBEDDED = "<embeddings>"  # recorded in place of a prompt that was given as embeddings

SHA256 = "_sha256"  # after the key of a file: the key of its hash
LATER_SETTINGS: Mapping[str, Any] = {"draft_strength": 0.0, "draft_noise": 1.0}  # their values in older records


def hash_keys() -> list[str]:
    """Return the keys of the hashes that are recorded beside files."""
    return [flag.key + SHA256 for flag in image_flags() if flag.setting.file] + ["anchor" + SHA256]


def recorded_keys() -> set[str]:
    """Return the keys of everything that decides an image, the allow-list of what is read."""
    return {flag.key for flag in image_flags()} | set(hash_keys())


def check(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide an image, out of all `settings`; those that are None are left out.

    Raises:
        ConfigError: a value is of the wrong type, or cannot be made from JSON.
    """
    settings = today(settings, *IMAGE_CLASSES)
    values = {name: settings[name] for name in sorted(recorded_keys()) if settings.get(name) is not None}
    for flag in image_flags():
        hashes = flag.key + SHA256
        for name in (flag.key, hashes) if flag.setting.file or flag.is_anchor else (flag.key,):
            fits = flag.fits_json if name == flag.key or flag.is_list else _is_text_value
            if name in values and not fits(values[name]):
                words = flag.json_words if name == flag.key or flag.is_list else "text"
                raise ConfigError(f"{name} is {values[name]!r}; it must be {words}", field=name)
    objective = values.get("objective", OBJECTIVES[0])
    if objective not in OBJECTIVES:
        raise ConfigError(
            f"objective {objective!r} is unknown, or a function of the program that made the image, which cannot be "
            f"made from JSON; choose one of {', '.join(OBJECTIVES)}"
        )
    for name in ("anchor", "ip_image", "region_map", "init_image", "mask"):
        if values.get(name) == IN_MEMORY:
            raise ConfigError(
                f"the {words_of(name)} was an image in another program's memory, which cannot be made from "
                "JSON; name a file"
            )
    if EMBEDDED in (values.get("prompt"), values.get("negative_prompt")):
        raise ConfigError("a prompt was given as embeddings, which cannot be made from JSON; give it in words")
    return values


def _is_text_value(value: Any) -> bool:
    return isinstance(value, str)


def recorded_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked settings of a recorded image; settings that are younger than the record are off.

    Raises:
        ConfigError: as `check`.
    """
    values = check(stored)
    return {**LATER_SETTINGS, **values} if "sync_adain" in values else values


GUIDE, CONTROL_MAP, ANCHOR, IP_IMAGE, REGION_MAP, INIT_IMAGE, MASK = ROLES = (
    "guide",
    "control_map",
    "anchor",
    "ip_image",
    "region_map",
    "init_image",
    "mask",
)
INPAINT = "inpaint"  # the control type whose map is the init image with a hole where the mask is
NO_START = "control inpaint follows the init image and its mask, and there is none; give one, or another control"
SINGLE = tuple(role for role in ROLES if role != CONTROL_MAP)  # roles of which an image has one at most
_PLAIN = ("prompt", "negative_prompt", "width", "height", "seed", "model", "fit")
_LISTS = {"controls": "control", "controlnets": "controlnet", "detectors": "detector"}

Config = TypeVar("Config", SamplingConfig, WindowConfig, SyncConfig, Adapters, Img2ImgConfig, UpscaleConfig)


def mapped_controls(controls: Sequence[str]) -> tuple[str, ...]:
    """Return the controls that follow a map: all but `INPAINT`."""
    return tuple(control for control in controls if control != INPAINT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A file that an image is generated from."""

    role: str  # one of `ROLES`
    path: str
    sha256: str = ""  # of the file, hexadecimal; empty: not known

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ConfigError(f"unknown role {self.role!r} of {self.path}; known: {', '.join(ROLES)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Everything that decides one image, apart from the machine and the versions of libraries.

    Raises:
        ConfigError: a value outside its range.
    """

    prompt: str
    negative_prompt: str = ""
    height: int  # px, before upscaling
    width: int  # px, likewise
    seed: int = 0
    sampling: SamplingConfig = SamplingConfig()
    windows: WindowConfig = WindowConfig()
    sync: SyncConfig = SyncConfig()
    img2img: Img2ImgConfig = Img2ImgConfig()  # how the image starts from its init image
    upscale: UpscaleConfig = UpscaleConfig()  # how the finished image is upscaled
    regions: tuple[Region, ...] = ()  # parts with regional prompts
    sources: tuple[Source, ...] = ()  # files in the order of `ROLES`, control maps in the order of the controls
    model: str = ""  # a named model, folder or hub id; empty: a pipeline that the caller loaded
    controls: tuple[str, ...] = ()  # control types
    controlnets: tuple[str, ...] = ()  # folders or hub ids, where they are not the model's own
    detectors: tuple[str, ...] = ()  # by name, where they are not the default
    adapters: Adapters = Adapters()  # LoRAs and the like
    fit: str = "exact"  # how a guide or control map of another aspect comes onto the canvas, one of `FITS`

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("prompt", "negative_prompt"):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise ConfigError(f"the {words_of(name)} is {text!r}; it must be text", field=name, value=text)
            if not text.isascii() and not _is_text(text):
                raise ConfigError(f"the {words_of(name)} is not UTF-8 text; write it anew", field=name, value=text)
        if not all(isinstance(region, Region) and _is_text(str(region)) for region in self.regions):
            raise ConfigError("regions are a list of Region(area=..., prompt=...), of UTF-8 text")
        object.__setattr__(self, "img2img", self.img2img.with_strength(bool(self.of(MASK))))
        if self.fit not in FITS:
            raise ConfigError(f"unknown fit {self.fit!r}; known: {', '.join(FITS)}")
        roles = [source.role for source in self.sources]
        if INIT_IMAGE not in roles and (MASK in roles or self.img2img.outpaint):
            raise ConfigError("a mask or outpainting needs an init image, the image that is inpainted or outpainted")
        if MASK in roles and self.img2img.outpaint:
            raise ConfigError("a mask and outpainting exclude each other: do one after the other")
        if roles != sorted(roles, key=ROLES.index) or any(roles.count(role) > 1 for role in SINGLE):
            raise ConfigError(
                f"sources come in the order {', '.join(ROLES)}, and there is one of each at most, but for control maps"
            )

    def of(self, role: str) -> tuple[Source, ...]:
        """Return the sources of a role."""
        return tuple(source for source in self.sources if source.role == role)

    def idle(self, given: Collection[str]) -> list[str]:
        """Return a line for each setting, of those `given` by key, that does nothing in this image."""
        sync, starts = self.sync, bool(self.of(INIT_IMAGE))
        flat = self.windows.projection != EQUIRECTANGULAR
        reasons: dict[str, tuple[str, ...]] = {}
        if not sync.perceptual:
            why = "--sync-weight is 0" if not sync.weight else "--sync-steps is 0"
            names = ("objective", *(f"sync_{name}" for name in ("every", "decay", "gradient", "step_size", "predict")))
            reasons[why] = (*names, "sync_shrink", *(() if sync.weight else ("sync_steps",)))
        if not sync.adain:
            reasons["--sync-adain is 0"] = ("sync_adain_steps",)
        if not sync.draft_strength:
            reasons["--draft-strength is 0"] = ("draft_noise",)
        elif self.regions or starts or not flat:
            reasons["images with regions, an --init-image or a sphere have no draft"] = (
                "draft_strength",
                "draft_noise",
            )
        if not self.regions:
            reasons["there is no --region"] = ("sync_shared_style",)
        if self.sampling.guidance_scale == 1:
            reasons["--guidance-scale is 1"] = ("guidance_start", "guidance_end", "guidance_rescale")
        if not self.controls:
            reasons["there is no --control"] = ("control_scale", "control_start", "control_end", "guess_mode")
        if not self.of(MASK) and not self.img2img.outpaint:
            reasons["nothing is inpainted or outpainted"] = ("mask_feather",)
        if self.upscale.upscale == 1 and self.upscale.tall_canvas == ROWS:
            reasons["--upscale is 1"] = ("upscale_strength", "upscale_color_match")
        if not self.adapters.ip_adapter:
            reasons["there is no --ip-adapter"] = ("ip_scale",)
        return [
            f"--{flag_of(name)} does nothing here: {why}"
            for why, names in reasons.items()
            for name in names
            if name in given
        ]

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values by key.

        An objective that is a function is recorded by its name, an image in memory as `IN_MEMORY`: neither can be read
        back.
        """
        maps = self.of(CONTROL_MAP)
        settings = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "width": self.width,
            "height": self.height,
            "seed": self.seed,
            **record(self.sampling, self.windows, self.sync, self.adapters, self.upscale),
            "model": self.model,
            "control": list(self.controls),
            "controlnet": list(self.controlnets),
            "detector": list(self.detectors),
            "fit": self.fit,
            "region": [str(region) for region in self.regions],
            "control_map": [source.path for source in maps],
            "control_map_sha256": [source.sha256 for source in maps],
        }
        settings |= record(self.img2img) if self.of(INIT_IMAGE) else dict.fromkeys(record(self.img2img))
        if not isinstance(self.sync.anchor, int | str):
            settings[ANCHOR] = IN_MEMORY
        for role in SINGLE:
            settings.setdefault(role, None)
            settings[f"{role}_sha256"] = None
        for source in self.sources:
            if source.role in SINGLE:
                settings[source.role], settings[f"{source.role}_sha256"] = source.path, source.sha256
        return settings

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "ImageSpec":
        """Return the spec of some settings: the inverse of `settings`.

        Absent settings have their defaults; keys outside `recorded_keys` are left out.

        Raises:
            ConfigError: a value is of the wrong type or outside its range, there is no prompt, width or height, or
                something cannot be read from JSON: an objective that was a function, an anchor that was no file.
        """
        values = check(settings)
        missing = [name for name in ("prompt", "width", "height") if name not in values]
        if missing:
            raise ConfigError(f"the settings of an image have no {', '.join(missing)}; give them")
        anchor = values.get(ANCHOR, MIDDLE)
        if isinstance(anchor, str) and anchor != MIDDLE:
            del values[ANCHOR]  # a file, and so a source
        plain: dict[str, Any] = {name: values[name] for name in _PLAIN if name in values}
        plain |= {field: tuple(values.get(name, ())) for field, name in _LISTS.items()}
        return cls(
            sampling=_config(SamplingConfig, values),
            windows=_config(WindowConfig, values),
            sync=_config(SyncConfig, values),
            adapters=_config(Adapters, values),
            img2img=_config(Img2ImgConfig, values),
            upscale=_config(UpscaleConfig, values),
            regions=tuple(Region.parse(line) for line in values.get("region", ())),
            sources=sources({**values, ANCHOR: anchor}),
            **plain,
        )


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _config(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Return a config of recorded values, complete: nothing of it is left to a preset."""
    return kind(**read_config(kind, values)).complete()


def sources(values: Mapping[str, Any]) -> tuple[Source, ...]:
    """Return the files that checked settings name."""
    paths = values.get(CONTROL_MAP, [])
    hashes = values.get("control_map_sha256", [])
    if len(hashes) != len(paths):
        hashes = [""] * len(paths)  # of other control maps, or written by hand
    maps = [Source(role=CONTROL_MAP, path=path, sha256=sha256) for path, sha256 in zip(paths, hashes, strict=True)]
    others = [
        Source(role=role, path=values[role], sha256=values.get(f"{role}_sha256", ""))
        for role in SINGLE
        if isinstance(values.get(role), str) and values[role] != MIDDLE
    ]
    return tuple(sorted([*others, *maps], key=lambda source: ROLES.index(source.role)))
