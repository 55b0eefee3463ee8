"""Light: the colours of sky, haze and ground by time of day."""

from dataclasses import dataclass, replace

import numpy as np

from training.canvas import Floats

_LIFT = 0.6  # exponent on the ambient light, 0..1: the smaller, the brighter
TIMES = ("dawn", "noon", "sunset", "night", "overcast")


@dataclass(frozen=True, kw_only=True)
class Light:
    """The colours of one moment; RGB 0..255, except `ambient`, which multiplies."""

    top: Floats
    middle: Floats
    horizon: Floats
    haze: Floats  # what distance fades into
    ambient: Floats  # multiplies the colour that a thing has in white light
    glow: Floats  # sun and moon
    cloud: Floats  # lit edges of clouds
    shade: Floats  # undersides of clouds

    def on(self, base: Floats | tuple[float, float, float], distance: float = 0.0) -> Floats:
        """Return the colour of a thing in this light, faded by `distance` (0 near .. 1 lost in the haze)."""
        lit = np.asarray(base, np.float32) * self.ambient
        return lit + distance * (self.haze - lit)

    def lifted(self) -> "Light":
        """Return this light as a viewer's eye sees people in it: less dark."""
        return replace(self, ambient=self.ambient**_LIFT)


# Two variants a time of day (top, middle, horizon, haze, ambient in %, glow, shade); scenes lie in between.
_VARIANTS: dict[str, tuple[tuple[tuple[int, int, int], ...], ...]] = {
    "dawn": (
        (
            (112, 132, 196),
            (226, 172, 196),
            (255, 222, 196),
            (240, 196, 196),
            (88, 76, 86),
            (255, 240, 214),
            (206, 160, 190),
        ),
        (
            (92, 150, 190),
            (186, 196, 206),
            (255, 214, 166),
            (238, 206, 184),
            (88, 82, 80),
            (255, 236, 196),
            (196, 176, 190),
        ),
    ),
    "noon": (
        (
            (54, 126, 206),
            (112, 180, 232),
            (206, 233, 244),
            (182, 216, 236),
            (100, 100, 100),
            (255, 252, 232),
            (196, 214, 232),
        ),
        (
            (40, 140, 200),
            (110, 196, 222),
            (222, 240, 232),
            (196, 224, 226),
            (102, 100, 94),
            (255, 250, 224),
            (200, 220, 226),
        ),
    ),
    "sunset": (
        ((92, 56, 122), (230, 92, 92), (255, 196, 98), (246, 140, 92), (74, 44, 46), (255, 228, 150), (150, 66, 104)),
        ((52, 58, 110), (196, 86, 110), (255, 166, 84), (226, 122, 96), (66, 44, 52), (255, 214, 140), (120, 62, 110)),
    ),
    "night": (
        ((10, 14, 44), (20, 34, 82), (50, 78, 130), (42, 64, 112), (20, 27, 46), (246, 244, 222), (30, 44, 88)),
        ((12, 18, 36), (16, 46, 74), (38, 92, 116), (32, 74, 98), (18, 32, 42), (240, 246, 232), (24, 50, 76)),
    ),
    "overcast": (
        (
            (126, 138, 150),
            (162, 171, 178),
            (204, 207, 208),
            (186, 192, 197),
            (66, 70, 73),
            (222, 224, 226),
            (128, 138, 148),
        ),
        (
            (146, 150, 156),
            (176, 180, 182),
            (210, 208, 202),
            (194, 195, 194),
            (68, 69, 70),
            (226, 226, 222),
            (142, 146, 152),
        ),
    ),
}
_JITTER = 7.0  # standard deviation of a scene's own shift of its sky colours, 0..255


def light(rng: np.random.Generator, time: str) -> Light:
    """Return the light of a time of day, between its two variants, shifted a little."""
    first, second = (np.asarray(variant, np.float32) for variant in _VARIANTS[time])
    mix = first + np.float32(rng.random()) * (second - first)
    strength = 0.4 if time == "night" else 1.0
    mix[:4] += rng.normal(0, _JITTER * strength, 3).astype(np.float32) + rng.normal(
        0, _JITTER * strength / 2, (4, 3)
    ).astype(np.float32)
    top, middle, horizon, haze, ambient, glow, shade = np.clip(mix, 0, 255)
    return Light(
        top=top,
        middle=middle,
        horizon=horizon,
        haze=haze,
        ambient=ambient / 100 * np.float32(rng.uniform(0.93, 1.05)),
        glow=glow,
        cloud=(0.35 * glow + 0.65 * middle).astype(np.float32) if time == "night" else glow,
        shade=shade,
    )
