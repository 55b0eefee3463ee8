"""Pose maps as OpenPose JSON: read them, draw them on the canvas, and write them."""

from pathlib import Path

from PIL import Image

from synccontrol.errors import InputError, translated
from synccontrol.io import atomic_write
from synccontrol.io.resize import Fitting
from synccontrol.preprocess.controls import pose
from synccontrol.preprocess.people import openpose_json

SUFFIX = ".json"

Box = tuple[float, float, float, float]


def open_map(path: Path) -> Image.Image:
    """Return the pose map of an OpenPose JSON file, in the size of the file's canvas.

    Raises:
        InputError: the file does not exist, or it is not OpenPose JSON.
    """
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise InputError(f"{path} is not a file; give OpenPose JSON, or an image")
    with translated():
        return pose.draw(openpose_json.load(path))


def redraw_on_canvas(control_map: Image.Image, box: Box, fit: Fitting, window: int, loop: bool) -> Image.Image | None:
    """Draw the people of a pose map at the size of the canvas, with the line width that ControlNets expect.

    Return None for a control map without keypoints.

    Args:
        control_map: the pose map.
        box: left, top, right, bottom of its part inside the canvas, px.
        fit: the position of that part on the canvas.
        window: height of the windows, px.
        loop: the canvas is a 360-degree ring.
    """
    poses = pose.poses_of(control_map)
    if poses is None:
        return None
    left, top, right, bottom = fit.inside
    people = poses.people.copy()
    for axis, (start, end, box_start, box_end) in enumerate(
        ((left, right, box[0], box[2]), (top, bottom, box[1], box[3]))
    ):
        people[..., axis] = (
            (people[..., axis] + 0.5 - box_start) * ((end - start) / (box_end - box_start)) - 0.5 + start
        )
    width, height = fit.canvas
    return pose.draw(openpose_json.Poses(people, height, width), loop, window)


def save(control_map: Image.Image, path: Path, overwrite: bool = False) -> None:
    """Write the people of a pose map as OpenPose JSON; do nothing for a map without keypoints.

    An existing file of the same content is accepted.

    Raises:
        OutputError: the file cannot be written, or it exists and `overwrite` is off.
    """
    poses = pose.poses_of(control_map)
    if poses is None:
        return
    text = openpose_json.write(poses).encode("utf-8")
    atomic_write.publish(path, lambda file: file.write(text), overwrite, allow_identical=True)
