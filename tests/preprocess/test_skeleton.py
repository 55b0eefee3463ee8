"""The OpenPose drawing."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.people.skeleton import COLOURS, JOINTS, LIMBS, draw, stick_width

HEIGHT, WIDTH = 512, 520


def standing() -> np.ndarray:
    """Returns one person (1, 18, 3) whose joints lie well apart."""
    person = np.ones((1, 18, 3), np.float32)
    person[0, :, 0] = [150, 150, 110, 80, 60, 190, 220, 240, 120, 115, 110, 180, 185, 190, 135, 165, 120, 180]
    person[0, :, 1] = [80, 130, 135, 190, 250, 135, 190, 250, 270, 370, 470, 270, 370, 470, 60, 60, 75, 75]
    return person


def test_every_joint_has_its_colour() -> None:
    picture, person = draw(standing(), HEIGHT, WIDTH), standing()[0]
    assert picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
    for (x, y, _), colour in zip(person, COLOURS, strict=True):
        assert tuple(picture[int(y), int(x)]) == colour


def test_limbs_are_dimmed_and_as_wide_as_the_height_says() -> None:
    person = standing()
    picture = draw(person, HEIGHT, WIDTH)
    shin = LIMBS.index((9, 10))
    middle = person[0, [9, 10], :2].mean(axis=0).astype(int)
    assert tuple(picture[middle[1], middle[0]]) == pytest.approx([0.6 * value for value in COLOURS[shin]], abs=1)
    row = picture[middle[1], middle[0] - 20 : middle[0] + 20].any(axis=-1)
    assert abs(row.sum() - 2 * stick_width(HEIGHT)) <= 1
    assert (stick_width(512), stick_width(256), stick_width(1024), stick_width(40)) == (4, 2, 8, 1)


@pytest.mark.parametrize("joint", range(18))
def test_absent_joint_is_not_drawn_nor_its_limbs(joint: int) -> None:
    person = standing()
    person[0, joint, 2] = 0
    picture = draw(person, HEIGHT, WIDTH)
    x, y = person[0, joint, :2].astype(int)
    assert not picture[y, x].any(), JOINTS[joint]
    colours = {tuple(colour) for colour in picture.reshape(-1, 3)}
    assert COLOURS[joint] not in colours


def test_nobody_is_black() -> None:
    assert not draw(np.zeros((0, 18, 3), np.float32), HEIGHT, WIDTH).any()
    assert not draw(np.zeros((2, 18, 3), np.float32), HEIGHT, WIDTH).any()


def test_joints_outside_the_picture_are_cut_off() -> None:
    person = standing()
    person[0, :, 0] -= 120
    assert np.array_equal(draw(person, HEIGHT, WIDTH)[:, :150], draw(standing(), HEIGHT, WIDTH)[:, 120:270])


def test_people_do_not_disturb_each_other() -> None:
    other = standing() + np.float32([WIDTH, 0, 0])
    both = draw(np.concatenate([standing(), other]), HEIGHT, 2 * WIDTH)
    assert np.array_equal(both[:, :WIDTH], draw(standing(), HEIGHT, WIDTH))
    assert np.array_equal(both[:, WIDTH:], draw(standing(), HEIGHT, WIDTH))


def test_sticks_follow_the_window_or_else_the_shorter_side() -> None:
    person = standing()
    thin = draw(person, 1024, WIDTH, window=256)
    assert np.array_equal(thin[:512], draw(person, 512, WIDTH, window=256))
    assert np.array_equal(draw(person, 2048, 512)[:512], draw(person, 512, 2048)[:, :512])
    assert thin.any(axis=-1).sum() < draw(person, 1024, WIDTH).any(axis=-1).sum()


@pytest.mark.parametrize("shift", [0, 100, -333])
def test_a_ring_goes_on_at_the_other_end(shift: int) -> None:
    person = standing() + np.float32([shift, 0, 0])
    rolled = np.roll(draw(standing(), HEIGHT, WIDTH), shift, axis=1)
    assert np.array_equal(draw(person, HEIGHT, WIDTH, loop=True), rolled)
