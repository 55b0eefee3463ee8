"""The published OpenPose drawing of people: coloured limbs and joints on black."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

JOINTS = (
    "nose", "neck",
    "right shoulder", "right elbow", "right wrist",
    "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle",
    "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip
NOSE, NECK = 0, 1
SHOULDERS = (2, 5)

LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7),
    (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip

COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # RGB; joint i and limb i share colour i  # fmt: skip

LIMB_INTENSITY = 0.6  # of the limb's colour; joints are drawn at full intensity
STICK_PER_WINDOW = 4 / 512  # half-width of a limb and radius of a joint, as a share of the window's height


def stick_width(window: int) -> int:
    """Returns the half-width of a limb, px, for windows of a height in px: 4 at 512, at least 1."""
    return max(1, round(STICK_PER_WINDOW * window))


def draw(
    people: npt.NDArray[np.float32], height: int, width: int, loop: bool = False, window: int | None = None
) -> npt.NDArray[np.uint8]:
    """Returns the skeletons of `people` on black, (height, width, 3) uint8 RGB.

    Every limb is an ellipse at 0.6 of its colour, every joint a disc at full colour. A joint with
    confidence 0 is absent: it and the limbs that end in it are not drawn. No people gives a black picture.

    Args:
        people: (n, 18, 3) x px, y px and confidence of each joint, in the order of `JOINTS`.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        loop: The picture is a ring: what goes on beyond one end is drawn at the other.
        window: Height in pixels of the windows that a ControlNet will see of the picture, which the width of the
            sticks follows; None: the picture's shorter side.
    """
    if loop:
        turns = np.array([[-width, 0, 0], [0, 0, 0], [width, 0, 0]], np.float32)
        people = (people[:, None] + turns[:, None]).reshape(-1, len(JOINTS), 3)
    picture = np.zeros((height, width, 3), np.uint8)
    stick = stick_width(window or min(height, width))
    for person in people:
        for limb, colour in zip(LIMBS, COLOURS, strict=False):  # there are 17 limbs and 18 colours
            if person[limb[0], 2] > 0 and person[limb[1], 2] > 0:
                _draw_limb(picture, person[limb[0]], person[limb[1]], stick, colour)
    for person in people:
        for (x, y, confidence), colour in zip(person, COLOURS, strict=True):
            if confidence > 0:
                cv2.circle(picture, (math.floor(x), math.floor(y)), stick, colour, thickness=-1)
    return picture


def _draw_limb(
    picture: npt.NDArray[np.uint8],
    start: npt.NDArray[np.float32],
    end: npt.NDArray[np.float32],
    stick: int,
    colour: tuple[int, int, int],
) -> None:
    """Draws one limb into `picture`: an ellipse from joint to joint, 2 x `stick` px thick."""
    dx, dy = float(end[0] - start[0]), float(end[1] - start[1])
    centre = (math.floor((start[0] + end[0]) / 2), math.floor((start[1] + end[1]) / 2))
    axes = (int(math.hypot(dx, dy) / 2), stick)
    outline = cv2.ellipse2Poly(centre, axes, int(math.degrees(math.atan2(dy, dx))), 0, 360, 1)
    cv2.fillConvexPoly(picture, outline, [channel * LIMB_INTENSITY for channel in colour])
