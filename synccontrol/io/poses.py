"""Pose maps that know their people: read from OpenPose JSON, drawn on the canvas, and written as JSON again."""

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
    """Returns the pose map of an OpenPose JSON file, of its own canvas's size.

    Raises:
        InputError: there is no such file, or it is not OpenPose JSON.
    """
    if path.exists() and not path.is_file():  # to open a pipe would wait for who fills it
        raise InputError(f"{path} is no file; give OpenPose JSON, or a picture")
    with translated():
        return pose.draw(openpose_json.load(path))


def on_canvas(control_map: Image.Image, box: Box, fit: Fitting, window: int, loop: bool) -> Image.Image | None:
    """Returns a pose map drawn anew on the canvas, so that its lines are sharp and as thick as ControlNets know them.

    Returns None for a control map whose people are not known.

    Args:
        control_map: what shows people.
        box: left, top, right, bottom of its part that lies inside the canvas, px.
        fit: where on the canvas that part lies.
        window: height of the windows, px.
        loop: the canvas is a ring.
    """
    poses = pose.poses_of(control_map)
    if poses is None:
        return None
    left, top, right, bottom = fit.inside
    people = poses.people.copy()
    for axis, (start, end, near, far) in enumerate(((left, right, box[0], box[2]), (top, bottom, box[1], box[3]))):
        people[..., axis] = (people[..., axis] + 0.5 - near) * ((end - start) / (far - near)) - 0.5 + start
    width, height = fit.canvas
    return pose.draw(openpose_json.Poses(people, height, width), loop, window)


def save(control_map: Image.Image, path: Path, overwrite: bool = False) -> None:
    """Writes the people of a pose map as OpenPose JSON; nothing for a map whose people are not known.

    A file of the same content may be there already.

    Raises:
        OutputError: the file cannot be written, or there is one and it is not to be overwritten.
    """
    poses = pose.poses_of(control_map)
    if poses is None:
        return
    text = openpose_json.write(poses).encode("utf-8")
    atomic_write.publish(path, lambda file: file.write(text), overwrite, same=True)
