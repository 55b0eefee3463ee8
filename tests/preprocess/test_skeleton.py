"""The OpenPose rendering of people, against the body layout of its convention."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.people.skeleton import COLOURS, JOINTS, LIMBS, draw, stick_width

HEIGHT, WIDTH = 512, 520

# The COCO model of OpenPose, stated here independently of the product: the joints in their order with their colours,
# and the limbs in theirs. A limb has the colour of the joint with the same index, at 60 % of its intensity.
OPENPOSE_JOINTS = {
    "nose": "ff0000",
    "neck": "ff5500",
    "right shoulder": "ffaa00",
    "right elbow": "ffff00",
    "right wrist": "aaff00",
    "left shoulder": "55ff00",
    "left elbow": "00ff00",
    "left wrist": "00ff55",
    "right hip": "00ffaa",
    "right knee": "00ffff",
    "right ankle": "00aaff",
    "left hip": "0055ff",
    "left knee": "0000ff",
    "left ankle": "5500ff",
    "right eye": "aa00ff",
    "left eye": "ff00ff",
    "right ear": "ff00aa",
    "left ear": "ff0055",
}
OPENPOSE_LIMBS = (
    ("neck", "right shoulder", "ff0000"),
    ("neck", "left shoulder", "ff5500"),
    ("right shoulder", "right elbow", "ffaa00"),
    ("right elbow", "right wrist", "ffff00"),
    ("left shoulder", "left elbow", "aaff00"),
    ("left elbow", "left wrist", "55ff00"),
    ("neck", "right hip", "00ff00"),
    ("right hip", "right knee", "00ff55"),
    ("right knee", "right ankle", "00ffaa"),
    ("neck", "left hip", "00ffff"),
    ("left hip", "left knee", "00aaff"),
    ("left knee", "left ankle", "0055ff"),
    ("neck", "nose", "0000ff"),
    ("nose", "right eye", "5500ff"),
    ("right eye", "right ear", "aa00ff"),
    ("nose", "left eye", "ff00ff"),
    ("left eye", "left ear", "ff00aa"),
)
ORDER = list(OPENPOSE_JOINTS)


def rgb(code: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(code)
    return red, green, blue


def standing() -> np.ndarray:
    """Return one person (1, 18, 3) with well separated joints."""
    person = np.ones((1, 18, 3), np.float32)
    person[0, :, 0] = [150, 150, 110, 80, 60, 190, 220, 240, 120, 115, 110, 180, 185, 190, 135, 165, 120, 180]
    person[0, :, 1] = [80, 130, 135, 190, 250, 135, 190, 250, 270, 370, 470, 270, 370, 470, 60, 60, 75, 75]
    return person


def only(*joints: int) -> np.ndarray:
    """Return one person (1, 18, 3) with some of the joints."""
    person = standing()
    person[0, [joint for joint in range(18) if joint not in joints], 2] = 0
    return person


def colours_of(image: np.ndarray) -> set[tuple[int, ...]]:
    """Return the set of RGB colours in an image."""
    codes = np.unique(image @ np.array([65536, 256, 1]))
    return {rgb(f"{code:06x}") for code in codes.tolist()}


def test_the_tables_are_the_openpose_convention() -> None:
    assert list(JOINTS) == ORDER
    assert list(COLOURS) == [rgb(code) for code in OPENPOSE_JOINTS.values()]
    assert [(ORDER[start], ORDER[end]) for start, end in LIMBS] == [limb[:2] for limb in OPENPOSE_LIMBS]


@pytest.mark.parametrize("joint", ORDER)
def test_each_joint_has_its_colour(joint: str) -> None:
    index = ORDER.index(joint)
    image, (x, y, _) = draw(only(index), HEIGHT, WIDTH), standing()[0, index]
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    assert colours_of(image) == {(0, 0, 0), rgb(OPENPOSE_JOINTS[joint])}
    assert tuple(image[int(y), int(x)]) == rgb(OPENPOSE_JOINTS[joint])


@pytest.mark.parametrize(("start", "end", "code"), OPENPOSE_LIMBS)
def test_each_limb_has_its_colour(start: str, end: str, code: str) -> None:
    image = draw(only(ORDER.index(start), ORDER.index(end)), HEIGHT, WIDTH, window=128)
    x, y = standing()[0, [ORDER.index(start), ORDER.index(end)], :2].mean(axis=0).astype(int)
    assert tuple(image[y, x]) == pytest.approx([0.6 * channel for channel in rgb(code)], abs=1)


def test_only_the_limbs_of_the_convention_are_drawn() -> None:
    limbs = {frozenset(limb[:2]) for limb in OPENPOSE_LIMBS}
    for first in range(18):
        for second in range(first):
            has_limb = frozenset((ORDER[first], ORDER[second])) in limbs
            assert (len(colours_of(draw(only(first, second), HEIGHT, WIDTH, window=128))) == 4) == has_limb


def test_limb_width_follows_the_image_height() -> None:
    person = standing()
    image = draw(person, HEIGHT, WIDTH)
    x, y = person[0, [ORDER.index("right knee"), ORDER.index("right ankle")], :2].mean(axis=0).astype(int)
    row = image[y, x - 20 : x + 20].any(axis=-1)
    assert abs(row.sum() - 2 * stick_width(HEIGHT)) <= 1
    assert (stick_width(512), stick_width(256), stick_width(1024), stick_width(40)) == (4, 2, 8, 1)


@pytest.mark.parametrize("joint", range(18))
def test_absent_joints_and_their_limbs_are_not_drawn(joint: int) -> None:
    person = standing()
    person[0, joint, 2] = 0
    image = draw(person, HEIGHT, WIDTH)
    x, y = person[0, joint, :2].astype(int)
    assert not image[y, x].any(), ORDER[joint]
    assert rgb(OPENPOSE_JOINTS[ORDER[joint]]) not in colours_of(image)


def test_no_people_give_a_black_image() -> None:
    assert not draw(np.zeros((0, 18, 3), np.float32), HEIGHT, WIDTH).any()
    assert not draw(np.zeros((2, 18, 3), np.float32), HEIGHT, WIDTH).any()


def test_joints_outside_the_image_are_clipped() -> None:
    person = standing()
    person[0, :, 0] -= 120
    assert np.array_equal(draw(person, HEIGHT, WIDTH)[:, :150], draw(standing(), HEIGHT, WIDTH)[:, 120:270])


def test_people_are_drawn_independently() -> None:
    neighbour = standing() + np.float32([WIDTH, 0, 0])
    both = draw(np.concatenate([standing(), neighbour]), HEIGHT, 2 * WIDTH)
    assert np.array_equal(both[:, :WIDTH], draw(standing(), HEIGHT, WIDTH))
    assert np.array_equal(both[:, WIDTH:], draw(standing(), HEIGHT, WIDTH))


def test_limb_width_follows_the_window_or_the_shorter_side() -> None:
    person = standing()
    thin = draw(person, 1024, WIDTH, window=256)
    assert np.array_equal(thin[:512], draw(person, 512, WIDTH, window=256))
    assert np.array_equal(draw(person, 2048, 512)[:512], draw(person, 512, 2048)[:, :512])
    assert thin.any(axis=-1).sum() < draw(person, 1024, WIDTH).any(axis=-1).sum()


@pytest.mark.parametrize("shift", [0, 100, -333])
def test_a_ring_continues_at_the_other_end(shift: int) -> None:
    person = standing() + np.float32([shift, 0, 0])
    rolled = np.roll(draw(standing(), HEIGHT, WIDTH), shift, axis=1)
    assert np.array_equal(draw(person, HEIGHT, WIDTH, loop=True), rolled)
