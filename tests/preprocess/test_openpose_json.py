"""OpenPose JSON: written people are read back, and invalid files raise an error of one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.controls.pose import draw, poses_of
from preprocess.errors import FormatError
from preprocess.people.openpose_json import Poses, load, read, write
from preprocess.people.skeleton import JOINTS
from synccontrol.cli import main, terminal
from synccontrol.errors import InputError
from synccontrol.io import poses, resize
from tests.preprocess.test_skeleton import standing
from training.render import render

BODY_25 = [
    "Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "MidHip", "RHip", "RKnee",
    "RAnkle", "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar", "LBigToe", "LSmallToe", "LHeel", "RBigToe",
    "RSmallToe", "RHeel",
]  # OpenPose's doc/02_output.md  # fmt: skip


def text(people: Any, **changes: Any) -> str:
    """Return the JSON text of people on a canvas of 300x512."""
    return json.dumps({"version": 1.3, "people": people, "canvas_width": 300, "canvas_height": 512, **changes})


def body(joints: Any) -> dict[str, Any]:
    return {"pose_keypoints_2d": np.asarray(joints, float).ravel().tolist()}


@st.composite
def crowds(draw: st.DrawFn) -> Poses:
    height, width = draw(st.integers(16, 4000)), draw(st.integers(16, 9000))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    people = rng.uniform(-1, 2, (draw(st.integers(0, 5)), 18, 3)).astype(np.float32)
    people[..., :2] *= (width, height)
    people[..., 2] = np.clip(people[..., 2], 0, 1)
    return Poses(people, height, width)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(crowds())
def test_written_people_are_read_back(written: Poses) -> None:
    loaded = read(write(written))
    present = written.people[..., 2] > 0
    assert (loaded.height, loaded.width) == (written.height, written.width)
    assert np.array_equal(loaded.people[..., 2], present)
    assert np.abs(loaded.people - written.people)[present][:, :2].max(initial=0) < 1e-3
    assert not loaded.people[~present].any()
    assert json.loads(write(loaded)) == json.loads(write(written))


def test_the_format_is_that_of_openpose() -> None:
    person = standing()
    person[0, 4, 2] = 0
    frame = json.loads(write(Poses(person, 512, 300)))
    assert (frame["version"], frame["canvas_width"], frame["canvas_height"]) == (1.3, 300, 512)
    numbers = frame["people"][0]["pose_keypoints_2d"]
    assert numbers[:6] == [150, 80, 1, 150, 130, 1] and numbers[12:15] == [0, 0, 0]
    assert frame["people"][0]["hand_left_keypoints_2d"] == []


def test_body_25_is_mapped_by_name() -> None:
    rows = [[10 + index, 20 + index, 0.5] for index in range(len(BODY_25))]
    person = read(text([body(rows)])).people[0]
    short = {"right ": "R", "left ": "L"}
    for joint, (x, _, confidence) in zip(JOINTS, person, strict=True):
        side = next((key for key in short if joint.startswith(key)), "")
        name = short.get(side, "") + joint.removeprefix(side).capitalize()
        assert (x, confidence) == (10 + BODY_25.index(name), 0.5)


def test_relative_coordinates_are_converted_to_pixels() -> None:
    person = standing()
    shares = person / np.float32([300, 512, 1])
    assert read(text([body(shares)])).people == pytest.approx(person, abs=1e-3)


def test_animation_frames_and_people_without_a_body() -> None:
    alone = [{"people": [body(standing()), {"pose_keypoints_2d": []}, {}], "canvas_width": 300, "canvas_height": 512}]
    assert read(json.dumps(alone)).people.shape == (1, 18, 3)
    assert read(text([])).people.shape == (0, 18, 3)


WRONG = {
    "no JSON": ("{", "is not JSON"),
    "deep": ("[" * 100_000, "is not JSON"),
    "a number": ("3", 'an object with a list "people"'),
    "two frames": ("[{}, {}]", 'an object with a list "people"'),
    "people no list": (text({}), 'an object with a list "people"'),
    "no canvas": (json.dumps({"people": []}), 'needs "canvas_height"'),
    "flat canvas": (text([], canvas_width=0), 'needs "canvas_width"'),
    "canvas NaN": (text([], canvas_width=float("nan")), 'needs "canvas_width"'),
    "canvas true": (text([], canvas_height=True), 'needs "canvas_height"'),
    "huge canvas": (text([], canvas_width=1e9), "at most 100 megapixels"),
    "person no object": (text([3]), "person 1 of a.json is not an object"),
    "body no list": (text([body([1] * 54), {"pose_keypoints_2d": "x"}]), "person 2 of a.json"),
    "17 joints": (text([body([1] * 51)]), r"has 51 numbers.*18 joints \(COCO\) or 25 \(BODY_25\)"),
    "a word": (text([{"pose_keypoints_2d": ["x"] * 54}]), "no number of pixels"),
    "null": (text([{"pose_keypoints_2d": [None] * 54}]), "no number of pixels"),
    "NaN": (text([body([float("nan")] * 54)]), "no number of pixels"),
    "endless": (text([{"pose_keypoints_2d": [10**400] * 54}]), "no number of pixels"),
    "far outside": (text([body([5000, 5, 1] * 18)]), "far outside of its canvas of 300x512"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_files_raise_an_error_of_one_line(name: str) -> None:
    content, message = WRONG[name]
    with pytest.raises(FormatError, match=message) as error:
        read(content, "a.json")
    assert "a.json" in str(error.value) and "\n" not in str(error.value)


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for name in ("a.json", "b.json", "."):
        with pytest.raises(FormatError, match="cannot be read as text"):
            load(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read as text"):
        poses.open_map(tmp_path / "a.json")


@pytest.fixture
def draw_person(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Return a function that draws a person from a JSON file on a canvas: (height, width, how) -> image."""
    path = tmp_path / "pose.json"
    path.write_text(text([body(standing())]))

    def draw_on_canvas(height: int, width: int, how: str) -> np.ndarray:
        source = poses.open_map(path)
        fit = resize.plan(source, height, width, "control map", how)
        redrawn = poses.redraw_on_canvas(source, fit.box, fit, window=256, loop=False)
        assert redrawn is not None and redrawn.size == (width, height)
        return np.asarray(redrawn)

    return draw_on_canvas


def test_json_is_drawn_at_the_size_of_the_canvas(draw_person: Callable[..., np.ndarray]) -> None:
    for height, width, how, scale, shift in (
        (1024, 600, resize.EXACT, (2, 2), (0, 0)),
        (512, 500, resize.PAD, (1, 1), (100, 0)),
        (256, 300, resize.CROP, (1, 1), (0, -128)),
        (512, 600, resize.STRETCH, (2, 1), (0, 0)),
    ):
        person = standing()
        person[..., :2] = (person[..., :2] + 0.5) * scale - 0.5 + shift
        expected = draw(Poses(person, height, width), window=256)
        assert np.array_equal(draw_person(height, width, how), np.asarray(expected)), how


def test_a_saved_pose_map_is_restored(tmp_path: Path) -> None:
    pose_map = draw(Poses(standing(), 512, 300))
    poses.save(pose_map, tmp_path / "a.json")
    loaded = poses.open_map(tmp_path / "a.json")
    assert np.array_equal(np.asarray(loaded), np.asarray(pose_map))
    plain = pose_map.convert("RGB").resize((10, 10))
    plain.info.clear()
    assert poses_of(plain) is None
    poses.save(plain, tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_the_command_line_reads_and_writes_json(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    person = standing() * np.float32([0.2, 0.12, 1]) + np.float32([40, 0, 0])
    Path("source.json").write_text(write(Poses(person, 64, 160)))
    draw(read(Path("source.json").read_text()), window=64).save("source.png")
    scene = render(np.random.default_rng(4), height=256, width=640, people=4)
    Image.fromarray(scene.image).save("guide.png")
    model = ["--model", str(checkpoint), "--controlnet", str(checkpoint / "controlnet-canny"), "--device", "cpu"]
    flags = [*model, "--control", "pose", "--steps", "1", "--sync-steps", "0", "--quiet", "--save-control-map"]
    for source in (["--control-map", "source.json"], ["--control-map", "source.png"], ["--guide", "guide.png"]):
        name = Path(source[1]).suffix[1:] if source[0] == "--control-map" else "guided"
        assert main.main([*flags, *source, "--output", f"{name}.png"]) == terminal.DONE, capsys.readouterr().err
    images = [np.asarray(Image.open(f"{name}{part}.png")) for name in ("json", "png") for part in ("", ".pose")]
    assert np.array_equal(images[0], images[2]) and np.array_equal(images[1], images[3])
    detected = load(Path("guided.pose.json"))
    assert (detected.height, detected.width) == (64, 160) and len(detected.people) > 0
    redrawn = np.asarray(draw(detected, window=64))
    assert np.mean(redrawn != np.asarray(Image.open("guided.pose.png"))) < 0.01
    assert not Path("png.pose.json").exists()
    assert main.main(["--control", "canny", "--control-map", "source.json", "--quiet"]) == terminal.BAD_INPUT
    assert "only pose is read from JSON" in capsys.readouterr().err
