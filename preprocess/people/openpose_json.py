"""Read and write people as OpenPose JSON (version 1.3), with the canvas size that pose editors add.

Format: OpenPose's doc/02_output.md. Only bodies are supported: faces and hands are written empty and ignored.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from synccontrol.preprocess.errors import FormatError
from synccontrol.preprocess.people.skeleton import JOINTS

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

VERSION = 1.3
BODY = "pose_keypoints_2d"
SIZE = ("canvas_height", "canvas_width")
EMPTY = tuple(f"{part}_keypoints_{d}d" for d in (2, 3) for part in ("pose", "face", "hand_left", "hand_right"))[1:]
BODY_25_JOINTS = 25
BODY_25 = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
)  # their indices of the 18 COCO joints; 8 is between the hips
MOST_PIXELS = 1e8  # largest canvas
FARTHEST = 10  # largest distance of a joint from the canvas, in canvases
DIGITS = 3  # decimal places


class Poses(NamedTuple):
    """The people in an image."""

    people: Floats  # (n, 18, 3): x px, y px, confidence; 0 is absent
    height: int  # of the image, px
    width: int


def write(poses: Poses) -> str:
    """Return people as JSON text.

    Confidences are written as 1 or 0, because ControlNet's pose editors treat joints below 1 as absent.
    """
    present = poses.people[..., 2:] > 0
    joints = np.concatenate([np.where(present, poses.people[..., :2].astype(float), 0), present], axis=2)
    people = [
        {"person_id": [-1], BODY: person.ravel().round(DIGITS).tolist(), **{key: [] for key in EMPTY}}
        for person in joints
    ]
    size = dict(zip(SIZE, (poses.height, poses.width), strict=True))
    return json.dumps({"version": VERSION, "people": people, **size})


def load(path: Path) -> Poses:
    """Read the people from a file. Raises `FormatError` if it is unreadable or invalid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read as text ({error}); give OpenPose JSON") from error
    return read(text, str(path))


def read(text: str, name: str = "the text") -> Poses:
    """Read the people from the JSON text of OpenPose or a pose editor.

    A body has 18 joints (COCO) or 25 (BODY_25, which includes these 18). Coordinates are in pixels, or relative to the
    canvas if none exceeds 1. People without a body are skipped.

    Args:
        text: the JSON text.
        name: the name of the text in messages.

    Raises:
        FormatError: the text does not have this format.
    """
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not JSON ({error}); save it again from a pose editor") from error
    if isinstance(frame, list) and len(frame) == 1:  # the format of editors for animations
        frame = frame[0]
    if not isinstance(frame, dict) or not isinstance(frame.get("people"), list):
        raise FormatError(f'{name} is not OpenPose JSON, an object with a list "people"; save it from a pose editor')
    height, width = (_side(frame.get(key), key, name) for key in SIZE)
    if height * width > MOST_PIXELS:
        raise FormatError(f"{name} has a canvas of {width}x{height}; at most {MOST_PIXELS / 1e6:.0f} megapixels work")
    bodies = [_body(person, f"person {number} of {name}") for number, person in enumerate(frame["people"], 1)]
    people = np.array([body for body in bodies if body is not None], np.float64).reshape(-1, len(JOINTS), 3)
    people[people[..., 2] <= 0] = 0
    if people.size and np.abs(people[..., :2]).max() <= 1:
        people[..., :2] *= (width, height)
    if (np.abs(people[..., :2]) > FARTHEST * np.array([width, height])).any():
        raise FormatError(
            f"{name} has a joint far outside of its canvas of {width}x{height}; give the canvas's true size"
        )
    return Poses(people.astype(np.float32), height, width)


def _side(value: Any, key: str, name: str) -> int:
    """Return a valid side of the canvas, px."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf or value % 1:
        raise FormatError(f'{name} needs "{key}": the size of the image, in whole pixels')
    return int(value)


def _body(person: Any, name: str) -> Doubles | None:
    """Return the joints (18, 3) of a person; None for a person without a body."""
    if not isinstance(person, dict) or not isinstance(person.get(BODY, []), list | None):
        raise FormatError(f'{name} is not an object with a list "{BODY}"')
    values = person.get(BODY) or []
    if not values:
        return None
    if len(values) not in (3 * len(JOINTS), 3 * BODY_25_JOINTS):
        raise FormatError(
            f'{name} has {len(values)} numbers in "{BODY}"; it needs three for each of 18 joints (COCO) or 25 (BODY_25)'
        )
    numbers = [value for value in values if isinstance(value, int | float) and abs(value) <= MOST_PIXELS]
    if len(numbers) < len(values) or any(isinstance(value, bool) for value in numbers):
        raise FormatError(f'{name} has a value in "{BODY}" that is no number of pixels')
    joints = np.array(numbers, np.float64).reshape(-1, 3)
    return joints[list(BODY_25)] if len(joints) == BODY_25_JOINTS else joints
