"""The OpenPose rendering of people: coloured limbs and joints on black."""

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
NECK = JOINTS.index("neck")

LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7),
    (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip

COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # RGB; joint i and limb i have colour i  # fmt: skip

LIMB_INTENSITY = 0.6  # of the colour of the limb; joints have full intensity
STICK_PER_WINDOW = 4 / 512  # half-width of a limb and radius of a joint, relative to the window height


def stick_width(window: int) -> int:
    """Return the half-width of a limb in px for a window height in px: 4 at 512, at least 1."""
    return max(1, round(STICK_PER_WINDOW * window))


def draw(
    people: npt.NDArray[np.float32], height: int, width: int, loop: bool = False, window: int | None = None
) -> npt.NDArray[np.uint8]:
    """Draw the skeletons of `people` on black, (height, width, 3) uint8 RGB.

    A limb is an ellipse at 0.6 of its colour, a joint a disc at full colour. A joint with confidence 0 is absent:
    neither the joint nor its limbs are drawn. The image is black if there are no people.

    Args:
        people: (n, 18, 3) x px, y px and confidence of each joint, in the order of `JOINTS`.
        height: height of the image, px.
        width: width of the image, px.
        loop: the image is a 360-degree ring: a skeleton that crosses one end continues at the other.
        window: height of the ControlNet's windows in px, which sets the width of the limbs; None: the shorter side.
    """
    if loop:
        copies = np.array([[-width, 0, 0], [0, 0, 0], [width, 0, 0]], np.float32)
        people = (people[:, None] + copies[:, None]).reshape(-1, len(JOINTS), 3)
    image = np.zeros((height, width, 3), np.uint8)
    stick = stick_width(window or min(height, width))
    for person in people:
        for limb, colour in zip(LIMBS, COLOURS, strict=False):  # 17 limbs, 18 colours
            if person[limb[0], 2] > 0 and person[limb[1], 2] > 0:
                _draw_limb(image, person[limb[0]], person[limb[1]], stick, colour)
    for person in people:
        for (x, y, confidence), colour in zip(person, COLOURS, strict=True):
            if confidence > 0:
                cv2.circle(image, (math.floor(x), math.floor(y)), stick, colour, thickness=-1)
    return image


def _draw_limb(
    image: npt.NDArray[np.uint8],
    start: npt.NDArray[np.float32],
    end: npt.NDArray[np.float32],
    stick: int,
    colour: tuple[int, int, int],
) -> None:
    """Draw one limb: an ellipse from joint to joint, 2 x `stick` px thick."""
    dx, dy = float(end[0] - start[0]), float(end[1] - start[1])
    centre = (math.floor((start[0] + end[0]) / 2), math.floor((start[1] + end[1]) / 2))
    axes = (int(math.hypot(dx, dy) / 2), stick)
    outline = cv2.ellipse2Poly(centre, axes, int(math.degrees(math.atan2(dy, dx))), 0, 360, 1)
    cv2.fillConvexPoly(image, outline, [channel * LIMB_INTENSITY for channel in colour])
