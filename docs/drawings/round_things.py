"""Panoramas bent to a ring or projected on a ball, and the borders of windows on them."""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

Floats = npt.NDArray[np.float64]

INNER = 0.45  # radius of a ring's inner edge, as a part of the outer one
TILT = np.radians(20.0)  # angle from which a ball is seen from above


def bent(panorama: Image.Image, side: int) -> Image.Image:
    """Return a cylindrical panorama bent to a ring and seen from above: its top is outside, the join at the top."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    radius = np.hypot(x, y) / (side / 2 * 0.95)
    angle = (np.arctan2(y, x) / (2 * np.pi) + 0.25) % 1
    across = (angle * panorama.width).astype(np.float32)
    down = ((1 - radius) / (1 - INNER) * panorama.height).astype(np.float32)
    pixels = cv2.remap(np.asarray(panorama), across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (radius <= 1) & (radius >= INNER)
    return Image.fromarray(np.dstack([pixels, 255 * inside.astype(np.uint8)]), "RGBA")


def ball(panorama: Image.Image, side: int) -> Image.Image:
    """Return an equirectangular panorama on a ball, seen from outside and a little above."""
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / (side / 2 * 0.98)
    inside = x**2 + y**2 <= 1
    depth = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    up = -y * np.cos(TILT) + depth * np.sin(TILT)
    ahead = depth * np.cos(TILT) + y * np.sin(TILT)
    longitude, latitude = np.arctan2(x, ahead), np.arcsin(np.clip(up, -1, 1))
    across = ((0.5 + longitude / (2 * np.pi)) * panorama.width - 0.5).astype(np.float32)
    down = ((0.5 - latitude / np.pi) * panorama.height - 0.5).astype(np.float32)
    pixels = cv2.remap(np.asarray(panorama), across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return Image.fromarray(np.dstack([pixels, 255 * inside.astype(np.uint8)]), "RGBA")


def border(rays: Tensor) -> Floats:
    """Return the directions (n, 3) along the border of a window: right, up, ahead."""
    sides = [rays[0], rays[:, -1], rays[-1].flip(0), rays[:, 0].flip(0)]
    directions = np.concatenate([side.numpy() for side in sides])
    return np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True))


def on_map(directions: Floats, width: int, height: int) -> list[tuple[Floats, Floats]]:
    """Return the points of directions on an equirectangular panorama, split where the line passes its edge."""
    latitude, longitude = _angles(directions)
    x, y = (0.5 + longitude / (2 * np.pi)) * width, (0.5 - latitude / np.pi) * height
    cuts = np.flatnonzero(np.abs(np.diff(x)) > width / 2) + 1
    return list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))


def on_ball(directions: Floats, side: int) -> tuple[Floats, Floats]:
    """Return the points of directions on the ball of `ball`; hidden points are NaN."""
    latitude, longitude = _angles(directions)
    right = np.cos(latitude) * np.sin(longitude)
    ahead, up = np.cos(latitude) * np.cos(longitude), np.sin(latitude)
    high, near = up * np.cos(TILT) - ahead * np.sin(TILT), up * np.sin(TILT) + ahead * np.cos(TILT)
    hidden = near < 0
    scale = side / 2 * 0.98
    return np.where(hidden, np.nan, side / 2 + right * scale), np.where(hidden, np.nan, side / 2 - high * scale)


def _angles(directions: Floats) -> tuple[Floats, Floats]:
    from torch import from_numpy

    from synccontrol.canvas.sphere import angles

    latitude, longitude = angles(from_numpy(directions))
    return latitude.numpy(), longitude.numpy()
