"""People on guides of any size: nobody is lost at the borders of views or counted twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

import preprocess
from preprocess.controls.pose import poses_of
from preprocess.estimators.bundled import BundledPose
from preprocess.people import detection
from preprocess.people.detection import in_views, merge, on_ring, similarity
from preprocess.people.skeleton import NECK, draw
from preprocess.wide.views import Sight, views
from tests.preprocess.test_skeleton import standing
from training.detector_scores import pose_score
from training.render import render

HEIGHT, WIDTH = 128, 900
SIDE = 128
MIN_HEIGHT = 0.25  # of the side of the square; smallest height of a detected person

Estimator = Callable[[np.ndarray], np.ndarray]


def person(x: float, foot: float, tall: float, pose: int = 0) -> np.ndarray:
    """Return a person (1, 18, 3), `tall` px high, with the body at `x`, the feet at `foot` and random arms."""
    joints = standing().astype(np.float32)
    joints[0, :, :2] -= [150, 60]  # the column of the neck, the top row
    arms = [3, 4, 6, 7]
    joints[0, arms, :2] += np.random.default_rng(pose).uniform(-25, 25, (4, 2))
    joints[0, :, :2] *= tall / 410
    joints[0, :, :2] += [x, foot - tall]
    joints[..., :2] = np.round(joints[..., :2] * 8) / 8  # so that shifts are exact
    return joints


def coded(height: int, width: int) -> np.ndarray:
    """Return an image with the position in every pixel: the column in red and green, the row in blue."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns // 256, columns % 256, rows], axis=-1).astype(np.uint8)


def perfect(truth: np.ndarray, sight: Sight, least: int = 4) -> Estimator:
    """Return an estimator that knows the people in a `coded` image, with the limits of a real one.

    It returns the joints inside the image of people with at least `least` of them, and nobody who is too small after
    the image is fitted into the square.
    """

    def estimate(image: np.ndarray) -> np.ndarray:
        red, green, top = (int(value) for value in image[0, 0])
        left, height, width = 256 * red + green, *image.shape[:2]
        fitted = max(height, width) if sight.letterboxes else min(height, width)
        people = truth - np.float32([left, top, 0])
        x, y = people[..., 0], people[..., 1]
        people[..., 2] *= (x >= 0) & (x < width) & (y >= 0) & (y < height)
        tall = np.ptp(truth[..., 1], axis=1) * sight.side / fitted
        return people[((people[..., 2] > 0).sum(axis=1) >= least) & (tall >= MIN_HEIGHT * sight.side)]

    return estimate


def alike(people_a: np.ndarray, people_b: np.ndarray) -> bool:
    """Return whether two sets of people are equal in any order."""
    if people_a.shape != people_b.shape:
        return False
    order = [np.lexsort((people[:, NECK, 1], people[:, NECK, 0])) for people in (people_a, people_b)]
    return bool(np.abs(people_a[order[0]] - people_b[order[1]]).max() < 1e-3)


@st.composite
def crowds(draw: st.DrawFn) -> np.ndarray:
    """Return people (n, 18, 3) side by side, at least a quarter of a height apart."""
    people, x = [], draw(st.floats(40, 200))
    while x < WIDTH - 60:
        tall = draw(st.floats(40, 110))
        foot = draw(st.floats(tall + 1, HEIGHT - 1))
        people.append(person(x, foot, tall, draw(st.integers(0, 99))))
        x += draw(st.sampled_from([0.25, 0.4, 1.0, 3.0])) * 110
    return np.concatenate(people)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(truth=crowds())
def test_everybody_is_detected_once_despite_cuts(truth: np.ndarray) -> None:
    sight = Sight(side=SIDE, letterboxes=True)
    image, estimate = coded(HEIGHT, WIDTH), perfect(truth, sight)
    assert len(estimate(image)) == 0, "in the square, everybody in the whole guide is too small"
    assert alike(in_views(estimate, sight)(image), truth)


@settings(deadline=None, derandomize=True, max_examples=10)
@given(truth=crowds())
def test_people_of_all_sizes_on_a_tall_guide(truth: np.ndarray) -> None:
    people = np.concatenate([truth, truth[::2] + np.float32([0, HEIGHT, 0]), person(400, 250, 230)])
    sight = Sight(side=64, letterboxes=False)
    image, estimate = coded(2 * HEIGHT, WIDTH), perfect(people, sight)
    assume(len(estimate(image)) < len(people))  # some people are too small for the whole view
    assert alike(in_views(estimate, sight)(image), merge(people))


def test_people_close_together_stay_two() -> None:
    for apart in (0.12, 0.2, 0.5):  # of their height
        pair = np.concatenate([person(100, 120, 100, 1), person(100 + 100 * apart, 120, 100, 2)])
        assert len(merge(pair)) == 2
    child_before_parent = np.concatenate([person(100, 120, 110), person(104, 121, 60)])
    assert len(merge(child_before_parent)) == 2


def test_the_more_complete_skeleton_stays() -> None:
    complete = person(100, 120, 100)
    cut = complete + np.float32([1.5, -1, 0])
    cut[0, [4, 7, 10, 13], 2] = 0
    for people in (np.concatenate([complete, cut]), np.concatenate([cut, complete])):
        assert np.array_equal(merge(people), complete)
    assert len(merge(np.zeros((0, 18, 3), np.float32))) == 0


def test_similarity_equals_a_manual_calculation() -> None:
    reference = np.zeros((18, 3), np.float32)
    reference[[2, 5, 8]] = [[0, 0, 1], [100, 0, 1], [100, 200, 1]]
    moved = reference.copy()
    moved[5, 0] += 10
    expected = (
        2 + np.exp(-(10**2) / (2 * 0.53 * 110 * 200 * (2 * 0.079) ** 2))
    ) / 3  # the area of the larger box, the sigma of a shoulder
    nobody = np.zeros_like(reference)
    assert similarity(reference, np.stack([moved, reference, nobody])) == pytest.approx([expected, 1, 0], rel=1e-5)
    assert similarity(moved, reference[None]) == pytest.approx([expected], rel=1e-5)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    side=st.integers(64, 700),
    letterboxes=st.booleans(),
    data=st.data(),
)
def test_objects_of_half_a_slice_lie_inside_one(
    height: int, width: int, side: int, letterboxes: bool, data: st.DataObject
) -> None:
    whole, *slices = views(height, width, Sight(side=side, letterboxes=letterboxes))
    assert whole == (0, 0, height, width)
    for size in {view.height for view in slices}:
        rank = [view for view in slices if view.height == size]
        assert all(view.width == size and view.top + size <= height and view.left + size <= width for view in rank)
        half = (size - 1) // 2
        top, left = data.draw(st.integers(0, height - half)), data.draw(st.integers(0, width - half))
        box = np.array([left, top, left + half, top + half])
        holding = [
            view for view in rank
            if view.left <= left and view.top <= top and box[2] <= view.left + size and box[3] <= view.top + size
        ]  # fmt: skip
        assert holding
        if min(height, width) > 1.5 * side:
            assert min(view.height for view in slices) == side


def test_uncut_boxes_replace_cut_ones() -> None:
    parent, child = [100, 20, 160, 200], [120, 110, 150, 200]
    boxes = np.float32([[100, 20, 130, 200], parent, [101, 22, 159, 199], child, [119, 111, 150, 180]])
    cut = np.array([True, False, False, False, True])
    assert detection.merge_boxes(boxes, cut).tolist() == [parent, child]
    assert detection.merge_boxes(boxes[:0], cut[:0]).shape == (0, 4)
    lone = detection.merge_boxes(boxes[[0]], cut[[0]])  # no view shows more of this person
    assert lone.tolist() == boxes[[0]].tolist()
    sliver = np.float32([parent, [160, 20, 160, 200]])  # part of the parent, in a view that starts at the last joint
    assert detection.merge_boxes(sliver, np.array([False, True])).tolist() == [parent]


@settings(deadline=None, derandomize=True, max_examples=20)
@given(truth=crowds())
def test_everybody_has_one_box(truth: np.ndarray) -> None:
    truth = truth[::2][np.diff(truth[::2, NECK, 0], prepend=-100) > 50]  # boxes that hardly overlap
    sight = Sight(side=SIDE, letterboxes=True)
    estimate = perfect(truth, sight, least=1)

    def find(image: np.ndarray) -> np.ndarray:  # a box extends to the border that cuts it
        places = estimate(image)[..., :2]
        corners = np.stack([places.min(axis=1), places.max(axis=1)], axis=1)
        return np.clip(corners, 0, image.shape[1::-1]).reshape(-1, 4).astype(np.float32)

    boxes = detection.boxes_in_views(find, sight)(coded(HEIGHT, WIDTH))
    expected = np.concatenate([truth[..., :2].min(axis=1), truth[..., :2].max(axis=1)], axis=1)
    assert boxes.shape == expected.shape
    order = [np.argsort(array[:, 0]) for array in (boxes, expected)]
    assert boxes[order[0]] == pytest.approx(expected[order[1]], abs=1e-3)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(truth=crowds(), shift=st.integers(-WIDTH, WIDTH))
def test_rolling_a_ring_rolls_its_people(truth: np.ndarray, shift: int) -> None:
    sight = Sight(side=SIDE, letterboxes=True)

    def detect(turn: int) -> np.ndarray:
        laps = [
            truth + np.float32([HEIGHT + turn + lap * WIDTH, 0, 0]) for lap in range(-2, 4)
        ]  # copies in the wrapped ring
        estimate = in_views(perfect(np.concatenate(laps), sight), sight)
        return on_ring(lambda image: estimate(coded(*image.shape[:2])))(coded(HEIGHT, WIDTH))

    people_here, people_rolled = detect(0), detect(shift)
    assert len(people_here) == len(people_rolled) == len(truth)
    maps = [draw(people, HEIGHT, WIDTH, loop=True).any(axis=-1) for people in (people_here, people_rolled)]
    assert np.array_equal(np.roll(maps[0], shift, axis=1), maps[1])


def test_a_person_across_the_seam_is_drawn_at_both_ends() -> None:
    scene = render(np.random.default_rng(5), height=256, width=768, tileable=True, people=5)
    shift = -32 * round(float(scene.people[0, NECK, 0]) / 32)  # whole cells of the coarsest level of the network
    guide = Image.fromarray(np.roll(scene.image, shift, axis=1))
    pose_map = preprocess.load("pose", loop=True)(guide)
    poses = poses_of(pose_map)
    assert poses is not None and len(poses.people) == len(scene.people)
    ends = np.asarray(pose_map)[:, [0, -1]].any(axis=-1)
    assert ends.any(axis=0).all()
    straight = poses_of(preprocess.load("pose", loop=True)(Image.fromarray(scene.image)))
    assert straight is not None
    turned = np.roll(draw(straight.people, 256, 768, loop=True), shift, axis=1)
    assert np.mean(turned.any(axis=-1) != np.asarray(pose_map).any(axis=-1)) < 0.0005


def test_slices_find_the_people_that_a_letterbox_loses() -> None:
    network = BundledPose("cpu")

    def letterboxed(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        size = (max(1, 256 * width // max(height, width)), max(1, 256 * height // max(height, width)))
        square = Image.new("RGB", (256, 256))
        square.paste(Image.fromarray(image).resize(size))
        people = network(np.asarray(square)).copy()
        people[..., :2] *= (width / size[0], height / size[1])
        return people

    scene = render(np.random.default_rng(12), height=256, width=1024, people=8)
    whole_score = pose_score(letterboxed(scene.image), scene.people)
    sliced_score = pose_score(in_views(letterboxed, Sight(side=256, letterboxes=True))(scene.image), scene.people)
    assert whole_score.found <= 1
    assert (sliced_score.found, sliced_score.extra) == (8, 0)


def test_small_people_on_a_guide_of_several_windows_height() -> None:
    rows = [render(np.random.default_rng(seed), height=256, width=512, people=3) for seed in (1, 2)]
    guide = np.concatenate([row.image for row in rows])
    truth = np.concatenate([rows[0].people, rows[1].people + np.float32([0, 256, 0])])
    poses = poses_of(preprocess.load("pose")(Image.fromarray(guide)))
    assert poses is not None
    score = pose_score(poses.people, truth)
    assert (score.found, score.extra) == (6, 0)
    assert pose_score(BundledPose("cpu")(guide), truth).found < 6
