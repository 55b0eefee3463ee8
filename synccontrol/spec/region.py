"""`Region`: a part of the image with its own prompt, as plain data and as a line of text."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from synccontrol.errors import ConfigError
from synccontrol.spec.schema import require, require_number

GREYS = 255
SOFT = 0.5  # of a window's shorter side
OPTIONS: Mapping[str, str] = {"avoid": "negative_prompt", "control": "control_scale", "soft": "soft"}  # in text: field
_NUMBER = r"\d+(?:\.\d+)?"
_SPAN = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})\s*(%|px|)")
_AND = re.compile(r"\s*(?<!p)x\s*")  # the x between the spans of a box, but not that of px
_GREY = re.compile(r"gr[ea]y\s+(\d+)")
_OPTION = re.compile(r"\s\|\s*([A-Za-z_-]+)\s*:")
HINT = "write 0-35%, 0-512 (pixels), 0-35% x 50-100% (across x down), or grey 128 (of a region map)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region:
    """A part of the image with a regional prompt. Raises `ConfigError` for a value outside its range.

    `area` is a span across the image (`0-35%`, or `0-512` in pixels), two spans (`0-35% x 50-100%`: across x down), or
    `grey 128`: the pixels of that level in the region map. In a ring a span may cross the join: `90-10%`.
    """

    area: str
    prompt: str  # the prompt of the image is appended to it
    negative_prompt: str = ""  # likewise
    control_scale: float = 1.0  # factor on the image's control scale
    soft: float = SOFT  # width of the blend at its borders, in window sides

    def __post_init__(self) -> None:
        for name in ("area", "prompt", "negative_prompt"):
            require(isinstance(getattr(self, name), str), f"a region's {name} is {getattr(self, name)!r}; it is a text")
        require(bool(self.prompt), f"region {self.area} has no prompt; say what it shows")
        require_number("a region's control scale", self.control_scale, 0.0)
        require_number("a region's softness", self.soft, 0.0, 2.0)
        for name in ("control_scale", "soft"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.grey is None:
            self.box(1, 1)
        if _fields(str(self)) != dataclasses.asdict(self):
            raise ConfigError(
                f"region {self.area}: what follows ' | ' in a prompt is an option of the region, and blanks around "
                "prompts are not kept; write it otherwise"
            )

    @classmethod
    def parse(cls, text: str) -> "Region":
        """Return the region of a line `AREA: PROMPT | avoid: TEXT | control: 0.5 | soft: 0.1`; options may be absent.

        Raises:
            ConfigError: the line is no region.
        """
        return cls(**_fields(text))

    def __str__(self) -> str:
        """Return the line that `parse` reads."""
        parts = [f"{self.area}: {self.prompt}"]
        for name, field in OPTIONS.items():
            value = getattr(self, field)
            if value != _DEFAULTS[field]:
                parts.append(f"{name}: {value if isinstance(value, str) else repr(value)}")
        return " | ".join(parts)

    @property
    def grey(self) -> int | None:
        """Return its level in the region map, 0..255; None if it is a box."""
        match = _GREY.fullmatch(self.area)
        if match is None:
            return None
        require_number(f"the grey of region {self.area!r}", int(match[1]), 0, GREYS)
        return int(match[1])

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of a box, px, in an image of height x width px.

        A right edge before the left one means that the box crosses the join of a ring.
        """
        across, *down = _AND.split(self.area, maxsplit=1)
        left, right = self._span(across, width)
        top, bottom = self._span(down[0], height) if down else (0.0, float(height))
        require(top < bottom, f"region {self.area} ends where it starts, or before; {HINT}")
        require(left != right, f"region {self.area} ends where it starts; {HINT}")
        return left, top, right, bottom

    def relative(self, height: int, width: int) -> "Region":
        """Return the same region in percent of an image of height x width px."""
        if self.grey is not None:
            return self
        left, top, right, bottom = self.box(height, width)
        x, y = (
            f"{min(100 * a / side, 100):.6f}-{min(100 * b / side, 100):.6f}%"
            for a, b, side in ((left, right, width), (top, bottom, height))
        )
        return dataclasses.replace(self, area=f"{x} x {y}")

    def _span(self, text: str, length: int) -> tuple[float, float]:
        match = _SPAN.fullmatch(text)
        if match is None:
            raise ConfigError(f"region {self.area!r} is no area; {HINT}")
        first, last = float(match[1]), float(match[2])
        if match[3] != "%":
            return first, last
        require(max(first, last) <= 100, f"region {self.area} goes beyond 100 %; {HINT}")
        return first * length / 100, last * length / 100


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Region)}


def _fields(text: str) -> dict[str, Any]:
    """Return the fields of a region's line."""
    require(isinstance(text, str), f"a region is {text!r}; give a text like '0-35%: a forest', or a Region")
    area_and_prompt, *options = _OPTION.split(text)
    area, colon, prompt = area_and_prompt.partition(":")
    require(bool(colon), f"region {text!r} has no area; write it like '0-35%: a forest': {HINT}")
    values: dict[str, Any] = {**_DEFAULTS, "area": area.strip(), "prompt": prompt.strip()}
    for name, value in zip(options[::2], options[1::2], strict=True):
        if name not in OPTIONS:
            raise ConfigError(
                f"region {area.strip()} has no option {name!r}; known: {', '.join(OPTIONS)} (LoRAs and IP-Adapters act "
                "on the whole picture)"
            )
        field = OPTIONS[name]
        try:
            values[field] = value.strip() if field == "negative_prompt" else float(value)
        except ValueError as error:
            raise ConfigError(f"region {area.strip()}: {name} is {value.strip()!r}; it must be a number") from error
    return values


def joined(own: str, common: str) -> str:
    """Return a region's prompt followed by the image's; an empty one adds nothing."""
    return ", ".join(text for text in (own, common) if text)
