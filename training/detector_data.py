"""What the bundled detectors learn from: rendered scenes with their truth, cut and distorted at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from synccontrol.preprocess.people.skeleton import JOINTS, NECK
from training.render import render

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

WHITE = 255
MIRRORED = tuple(
    JOINTS.index(name.replace("left", "?").replace("right", "left").replace("?", "right")) for name in JOINTS
)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Which part of a scene the network is shown."""

    height: int = 256  # pixels; what the network is trained at
    width: int = 160  # pixels
    zoom: float = 1.5  # the largest enlargement of a part of the scene
    zoomed: float = 0.4  # share of samples that are enlarged


class Sample(NamedTuple):
    """A cut out of a scene: the picture (H, W, 3), nearness (H, W) in 0..1, and the people (n, 18, 3) in it."""

    image: Bytes
    depth: npt.NDArray[np.floating]
    people: Floats


def scenes(rng: np.random.Generator, count: int, cut: Cut, most_people: int) -> list[Sample]:
    """Returns `count` rendered scenes, twice as wide as a cut.

    Args:
        rng: The only source of randomness.
        count: How many.
        cut: What will be cut out of them.
        most_people: Every scene has from none to so many people.
    """
    made = []
    for _ in range(count):
        people = int(rng.integers(most_people + 1))
        scene = render(rng, height=cut.height, width=2 * cut.width, people=people)
        made.append(Sample(scene.image, scene.depth.astype(np.float16), scene.people))
    return made


def samples(rng: np.random.Generator, pool: list[Sample], cut: Cut, distorted: float = 1.0) -> Iterator[Sample]:
    """Yields cuts of random scenes of `pool`, mirrored and enlarged at random, for ever; a share of them distorted."""
    while True:
        sample = cut_out(rng, pool[rng.integers(len(pool))], cut)
        image = distort(rng, sample.image) if rng.random() < distorted else np.ascontiguousarray(sample.image)
        yield sample._replace(image=image)


def cut_out(rng: np.random.Generator, scene: Sample, cut: Cut) -> Sample:
    """Returns a random part of `scene`, `cut.height` x `cut.width` px."""
    zoom = rng.uniform(1, cut.zoom) if rng.random() < cut.zoomed else 1.0
    height, width = round(cut.height / zoom), round(cut.width / zoom)
    full_height, full_width = scene.depth.shape
    top, left = int(rng.integers(full_height - height + 1)), int(rng.integers(full_width - width + 1))
    part = np.s_[top : top + height, left : left + width]
    size = (cut.width, cut.height)
    image = cv2.resize(scene.image[part], size, interpolation=cv2.INTER_LINEAR)
    depth = cv2.resize(scene.depth[part].astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    people = scene.people.copy()
    people[..., :2] = (people[..., :2] - (left, top)) * zoom
    if rng.random() < 1 / 2:
        image, depth = image[:, ::-1], depth[:, ::-1]
        people = people[:, MIRRORED]
        people[..., 0] = cut.width - 1 - people[..., 0]
    return Sample(image, depth, _inside(people, cut))


def _inside(people: Floats, cut: Cut) -> Floats:
    """Returns the people whose neck lies in the cut, with the joints outside it marked absent."""
    x, y, _ = np.moveaxis(people, -1, 0)
    inside = (x >= 0) & (x < cut.width) & (y >= 0) & (y < cut.height)
    people[..., 2] *= inside
    kept: Floats = people[people[:, NECK, 2] > 0]
    return kept


def distort(rng: np.random.Generator, image: Bytes) -> Bytes:
    """Returns the picture as another camera, paper or file might show it: colour, tone, blur, noise, JPEG."""
    for distortion, share in DISTORTIONS.items():
        if rng.random() < share:
            image = distortion(rng, image)
    return np.ascontiguousarray(image)


def _turn_hue(rng: np.random.Generator, image: Bytes) -> Bytes:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(180)) % 180  # OpenCV counts hue in steps of two degrees
    return _bytes(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _fade(rng: np.random.Generator, image: Bytes) -> Bytes:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _bytes(cv2.addWeighted(image, keep := max(0.0, rng.uniform(-0.5, 1)), grey, 1 - keep, 0))


def _change_tone(rng: np.random.Generator, image: Bytes) -> Bytes:
    levels = np.linspace(0, 1, WHITE + 1)[:, None] ** np.exp(rng.normal(0, 0.3))
    levels = levels * np.exp(rng.normal(0, 0.15, 3)) + rng.normal(0, 0.06, 3)
    return _bytes(cv2.LUT(image, _bytes(WHITE * levels)[:, None]))


def _shade(rng: np.random.Generator, image: Bytes) -> Bytes:
    coarse = np.exp(rng.normal(0, 0.25, (5, 4))).astype(np.float32)
    shade = cv2.resize(coarse, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return _bytes(image * shade[..., None])


def _blur(rng: np.random.Generator, image: Bytes) -> Bytes:
    return _bytes(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.6)))


def _coarsen(rng: np.random.Generator, image: Bytes) -> Bytes:
    height, width = image.shape[:2]
    share = rng.uniform(0.4, 0.9)
    small = cv2.resize(image, (round(width * share), round(height * share)), interpolation=cv2.INTER_AREA)
    return _bytes(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def _add_noise(rng: np.random.Generator, image: Bytes) -> Bytes:
    noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(2, 16)
    return _bytes(image + noise)


def _compress(rng: np.random.Generator, image: Bytes) -> Bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))]
    return _bytes(cv2.imdecode(cv2.imencode(".jpg", np.ascontiguousarray(image), quality)[1], cv2.IMREAD_COLOR))


def _bytes(values: Any) -> Bytes:
    """Returns an array's values as 0..255 bytes."""
    return np.asarray(np.clip(values, 0, WHITE), np.uint8)


DISTORTIONS = {
    _turn_hue: 0.15,
    _fade: 0.25,
    _change_tone: 0.6,
    _shade: 0.3,
    _blur: 0.25,
    _coarsen: 0.2,
    _add_noise: 0.3,
    _compress: 0.2,
}  # each with the share of samples that it is applied to
