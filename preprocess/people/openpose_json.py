"""People as OpenPose's JSON (version 1.3), with the canvas size that ControlNet's pose editors add: write and read.

Format: OpenPose's doc/02_output.md. Only bodies are kept: faces and hands are written empty and not read.
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
BODY_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)  # where it has ours; 8 is between the hips
MOST_PIXELS = 1e8  # of a canvas
FARTHEST = 10  # canvases that a joint may lie outside of the canvas
DIGITS = 3  # after the point


class Poses(NamedTuple):
    """The people of a picture."""

    people: Floats  # (n, 18, 3): x px, y px, confidence; 0 is absent
    height: int  # of the picture, px
    width: int


def write(poses: Poses) -> str:
    """Returns the JSON text of people.

    A joint's confidence is written as 1 or 0, because editors for ControlNet take what is below 1 for absent.
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
    """Returns the people in a file. Raises `FormatError` if it cannot be read, or as `read`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read as text ({error}); give OpenPose JSON") from error
    return read(text, str(path))


def read(text: str, what: str = "the text") -> Poses:
    """Returns the people in a JSON text of OpenPose or of an editor.

    Bodies are of 18 joints (COCO) or 25 (BODY_25, of which these 18 are taken). Joints are given in pixels, or as
    shares of the canvas if none is beyond 1. A person without a body is left out.

    Args:
        text: The JSON text.
        what: What to call it in messages.

    Raises:
        FormatError: The text is not of this format.
    """
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON ({error}); save it again from a pose editor") from error
    if isinstance(frame, list) and len(frame) == 1:  # as editors save the frames of a film
        frame = frame[0]
    if not isinstance(frame, dict) or not isinstance(frame.get("people"), list):
        raise FormatError(f'{what} is not OpenPose JSON, an object with a list "people"; save it from a pose editor')
    height, width = (_side(frame.get(key), key, what) for key in SIZE)
    if height * width > MOST_PIXELS:
        raise FormatError(f"{what} has a canvas of {width}x{height}; at most {MOST_PIXELS / 1e6:.0f} megapixels work")
    bodies = [_body(person, f"person {number} of {what}") for number, person in enumerate(frame["people"], 1)]
    people = np.array([body for body in bodies if body is not None], np.float64).reshape(-1, len(JOINTS), 3)
    people[people[..., 2] <= 0] = 0
    if people.size and np.abs(people[..., :2]).max() <= 1:
        people[..., :2] *= (width, height)
    if (np.abs(people[..., :2]) > FARTHEST * np.array([width, height])).any():
        raise FormatError(
            f"{what} has a joint far outside of its canvas of {width}x{height}; give the canvas's true size"
        )
    return Poses(people.astype(np.float32), height, width)


def _side(value: Any, key: str, what: str) -> int:
    """Returns a side of the canvas, px."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf or value % 1:
        raise FormatError(f'{what} needs "{key}": the size, in whole pixels, of the picture that its joints lie in')
    return int(value)


def _body(person: Any, what: str) -> Doubles | None:
    """Returns the joints (18, 3) of a person of a file; None for one without a body."""
    if not isinstance(person, dict) or not isinstance(person.get(BODY, []), list | None):
        raise FormatError(f'{what} is not an object with a list "{BODY}"')
    values = person.get(BODY) or []
    if not values:
        return None
    if len(values) not in (3 * len(JOINTS), 3 * BODY_25_JOINTS):
        raise FormatError(
            f'{what} has {len(values)} numbers in "{BODY}"; it needs three for each of 18 joints (COCO) or 25 (BODY_25)'
        )
    numbers = [value for value in values if isinstance(value, int | float) and abs(value) <= MOST_PIXELS]
    if len(numbers) < len(values) or any(isinstance(value, bool) for value in numbers):
        raise FormatError(f'{what} has something in "{BODY}" that is no number of pixels')
    joints = np.array(numbers, np.float64).reshape(-1, 3)
    return joints[list(BODY_25)] if len(joints) == BODY_25_JOINTS else joints
