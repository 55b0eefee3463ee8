"""`Region`: a part of the picture with a prompt of its own, as plain data and as a line of text."""

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
_AND = re.compile(r"\s*(?<!p)x\s*")  # between both spans of a box; px is no end of one
_GREY = re.compile(r"gr[ea]y\s+(\d+)")
_OPTION = re.compile(r"\s\|\s*([A-Za-z_-]+)\s*:")
HINT = "write 0-35%, 0-512 (pixels), 0-35% x 50-100% (across x down), or grey 128 (of a region map)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region:
    """A part of the picture, and what is drawn there. Raises `ConfigError` for a value outside its range.

    `area` is a span across the picture (`0-35%`, or `0-512` in pixels), two of them (`0-35% x 50-100%`: across x down),
    or `grey 128`: what has that level in the region map. On a ring a span may pass the join: `90-10%`.
    """

    area: str
    prompt: str  # the picture's own prompt follows it
    negative_prompt: str = ""  # likewise
    control_scale: float = 1.0  # factor on the picture's
    soft: float = SOFT  # how wide its borders pass into what lies beside it, in sides of a window

    def __post_init__(self) -> None:
        for name in ("area", "prompt", "negative_prompt"):
            require(isinstance(getattr(self, name), str), f"a region's {name} is {getattr(self, name)!r}; it is a text")
        require(bool(self.prompt), f"region {self.area} has no prompt; say what is to be drawn there")
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
        """Returns the region of a line `AREA: PROMPT | avoid: TEXT | control: 0.5 | soft: 0.1`; options may be absent.

        Raises:
            ConfigError: the line says something else.
        """
        return cls(**_fields(text))

    def __str__(self) -> str:
        """Returns the line that `parse` reads."""
        said = [f"{self.area}: {self.prompt}"]
        for name, field in OPTIONS.items():
            value = getattr(self, field)
            if value != _DEFAULTS[field]:
                said.append(f"{name}: {value if isinstance(value, str) else repr(value)}")
        return " | ".join(said)

    @property
    def grey(self) -> int | None:
        """Returns its level in the region map, 0..255; None if it is a box."""
        found = _GREY.fullmatch(self.area)
        if found is None:
            return None
        require_number(f"the grey of region {self.area!r}", int(found[1]), 0, GREYS)
        return int(found[1])

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Returns left, top, right and bottom of a box, px, in a picture of height x width px.

        Its right may lie before its left: then it passes the join of a ring.
        """
        across, *down = _AND.split(self.area, maxsplit=1)
        left, right = self._span(across, width)
        top, bottom = self._span(down[0], height) if down else (0.0, float(height))
        require(top < bottom, f"region {self.area} ends where it starts, or before; {HINT}")
        require(left != right, f"region {self.area} ends where it starts; {HINT}")
        return left, top, right, bottom

    def relative(self, height: int, width: int) -> "Region":
        """Returns it in percent, as it lies in a picture of height x width px."""
        if self.grey is not None:
            return self
        left, top, right, bottom = self.box(height, width)
        x, y = (
            f"{min(100 * a / side, 100):.6f}-{min(100 * b / side, 100):.6f}%"
            for a, b, side in ((left, right, width), (top, bottom, height))
        )
        return dataclasses.replace(self, area=f"{x} x {y}")

    def _span(self, text: str, length: int) -> tuple[float, float]:
        found = _SPAN.fullmatch(text)
        if found is None:
            raise ConfigError(f"region {self.area!r} is no area; {HINT}")
        first, last = float(found[1]), float(found[2])
        if found[3] != "%":
            return first, last
        require(max(first, last) <= 100, f"region {self.area} goes beyond 100 %; {HINT}")
        return first * length / 100, last * length / 100


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Region)}


def _fields(text: str) -> dict[str, Any]:
    """Returns the fields of a region's line."""
    require(isinstance(text, str), f"a region is {text!r}; give a text like '0-35%: a forest', or a Region")
    said, *options = _OPTION.split(text)
    area, colon, prompt = said.partition(":")
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
    """Returns a region's prompt with that of the whole picture behind it; an empty one adds nothing."""
    return ", ".join(text for text in (own, common) if text)
