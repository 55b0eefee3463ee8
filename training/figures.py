"""People: simple articulated figures with exact OpenPose joints."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.canvas import Canvas, Floats, Polygon
from training.palette import Light

JOINTS = (
    "nose", "neck", "r-shoulder", "r-elbow", "r-wrist", "l-shoulder", "l-elbow", "l-wrist", "r-hip", "r-knee",
    "r-ankle", "l-hip", "l-knee", "l-ankle", "r-eye", "l-eye", "r-ear", "l-ear",
)  # fmt: skip
At = Callable[[str], tuple[float, float]]  # joint -> px
_INDEX = {name: index for index, name in enumerate(JOINTS)}
_SKINS = ((242, 204, 170), (224, 172, 132), (176, 122, 86), (122, 80, 56))
_HAIRS = ((60, 42, 34), (120, 78, 44), (212, 168, 92), (40, 38, 44))
_SHIRTS = ((206, 62, 54), (238, 176, 52), (52, 112, 190), (240, 236, 226), (64, 150, 98), (132, 74, 148))
_TROUSERS = ((48, 56, 86), (92, 76, 64), (56, 62, 62), (118, 112, 100))
_ROOM = 92  # px of width (at 256 px high) for each person, where there is so much


@dataclass(frozen=True, kw_only=True)
class _Pose:
    """Directions of the limbs in degrees; 0 hangs down, positive leans to the picture's right."""

    torso: float
    arms: tuple[tuple[float, float], tuple[float, float]]  # (upper, lower) of the person's right and left
    legs: tuple[tuple[float, float], tuple[float, float]]


def _pose(rng: np.random.Generator) -> _Pose:
    """Return a random pose: standing, walking, waving, arms up, arms wide, hands on hips."""

    def around(middle: float, spread: float = 9) -> float:
        return middle + float(rng.normal(0, spread))

    right_leg, left_leg = (around(-7, 4), around(-4, 4)), (around(7, 4), around(4, 4))
    right_arm, left_arm = (around(-14), around(-6)), (around(14), around(6))
    kind = rng.choice(["stand", "walk", "wave", "up", "wide", "hips", "point"])
    if kind == "walk":
        stride = rng.choice([-1, 1]) * rng.uniform(16, 34)
        bend = -abs(rng.normal(14, 8)) * np.sign(stride)
        right_leg, left_leg = (stride, stride + bend), (-stride, -stride + bend)
        right_arm, left_arm = (-stride, -stride * 0.4 + 12), (stride, stride * 0.4 + 12)
    elif kind == "wave":
        if rng.random() < 0.5:
            right_arm = (around(-100, 15), around(-165, 15))
        else:
            left_arm = (around(100, 15), around(165, 15))
    elif kind == "up":
        right_arm, left_arm = (around(-140, 14), around(-165, 14)), (around(140, 14), around(165, 14))
    elif kind == "wide":
        right_arm, left_arm = (around(-85, 12), around(-92, 14)), (around(85, 12), around(92, 14))
        right_leg, left_leg = (around(-18, 4), around(-15, 4)), (around(18, 4), around(15, 4))
    elif kind == "hips":
        right_arm, left_arm = (around(-48, 6), around(42, 8)), (around(48, 6), around(-42, 8))
    elif kind == "point":
        left_arm = (around(88, 16), around(92, 16))
    return _Pose(torso=around(0, 3), arms=(right_arm, left_arm), legs=(right_leg, left_leg))


def _joints(rng: np.random.Generator, pose: _Pose) -> Floats:
    """Return the joints (18, 3: x, y, visible) of a figure of height 1, hips at the origin."""

    def reach(start: Floats, degrees: float, length: float) -> Floats:
        turn = np.deg2rad(degrees)
        return start + np.array([np.sin(turn), np.cos(turn)], np.float32) * np.float32(length)

    points = np.zeros((18, 2), np.float32)
    facing = rng.choice([-1, 0, 1], p=[0.25, 0.5, 0.25])  # looks to the picture's left, at us, to the right
    narrow = 0.55 if facing else 1.0
    neck = reach(np.zeros(2, np.float32), 180 + pose.torso, 0.31)
    head = reach(neck, 180 + pose.torso + rng.normal(0, 5), 0.115)
    points[_INDEX["neck"]] = neck
    for side, name, arm, leg in ((-1, "r", pose.arms[0], pose.legs[0]), (1, "l", pose.arms[1], pose.legs[1])):
        shoulder = neck + np.array([side * 0.105 * narrow, 0.02], np.float32)
        hip = np.array([side * 0.062 * narrow, 0], np.float32)
        elbow, knee = reach(shoulder, arm[0], 0.16), reach(hip, leg[0], 0.24)
        chain = (shoulder, elbow, reach(elbow, arm[1], 0.15), hip, knee, reach(knee, leg[1], 0.235))
        for joint, point in zip(("shoulder", "elbow", "wrist", "hip", "knee", "ankle"), chain, strict=True):
            points[_INDEX[f"{name}-{joint}"]] = point
        points[_INDEX[f"{name}-eye"]] = head + np.array([side * 0.022 + facing * 0.03, -0.015], np.float32)
        points[_INDEX[f"{name}-ear"]] = head + np.array([side * 0.052 - facing * 0.01, -0.002], np.float32)
    points[_INDEX["nose"]] = head + np.array([facing * 0.04, 0.008], np.float32)
    seen = np.ones(18, np.float32)
    if facing:  # the far eye and ear are hidden
        far = "l" if facing < 0 else "r"
        seen[[_INDEX[f"{far}-ear"]]] = 0
    return np.concatenate([points, seen[:, None]], 1)


def paint_people(
    canvas: Canvas, rng: np.random.Generator, light: Light, count: int, *, ground: float, near: float
) -> Floats:
    """Paint `count` people side by side and return their joints (n, 18, 3), px.

    `ground` is the row of the horizon of the plane that they stand on; `near` the depth of that plane there."""
    if not count:
        return np.zeros((0, 18, 3), np.float32)
    scale, people = canvas.scale, []
    slot_count = max(count, int(canvas.width / (_ROOM * scale)))
    slots, slot_wide = rng.permutation(slot_count)[:count], canvas.width / slot_count
    order = sorted((float(rng.random() ** 0.8), int(slot)) for slot in slots)
    for nearness, slot in order:
        joints = _joints(rng, _pose(rng))
        tall = scale * (62 + 82 * nearness) * rng.uniform(0.93, 1.07)
        foot = ground + (0.22 + 0.7 * nearness) * (canvas.height - ground)
        foot = max(foot, tall * 1.12)
        soles = joints[[_INDEX["r-ankle"], _INDEX["l-ankle"]], 1].max() * tall + 0.035 * tall
        half = float(np.abs(joints[:, 0]).max() + 0.05) * tall
        middle = (slot + rng.uniform(0.35, 0.65)) * slot_wide
        x = float(np.clip(middle, half, canvas.width - half)) if half < canvas.width / 2 else canvas.width / 2
        joints[:, 0] = joints[:, 0] * tall + x
        joints[:, 1] = joints[:, 1] * tall + foot - soles
        _paint_figure(canvas, rng, light, joints, tall, min(1.0, near + (1 - near) * nearness + 0.06))
        people.append(joints)
    return np.stack(people)


def _paint_figure(
    canvas: Canvas, rng: np.random.Generator, light: Light, joints: Floats, tall: float, depth: float
) -> None:
    """Paint one figure from its joints: far limbs first, then trunk, head, hair."""

    def at(name: str) -> tuple[float, float]:
        x, y, _ = joints[_INDEX[name]]
        return float(x), float(y)

    def pick(colours: tuple[tuple[int, int, int], ...]) -> Floats:
        return light.lifted().on(colours[rng.integers(len(colours))], 0.06)

    skin, hair, shirt, trousers = pick(_SKINS), pick(_HAIRS), pick(_SHIRTS), pick(_TROUSERS)
    ellipse = _disc(*_between(at("r-ear"), at("l-ear")), 0.078 * tall)
    head_x, head_y = _between(at("r-ear"), at("l-ear"))
    crown = _disc(head_x, head_y - 0.02 * tall, 0.082 * tall)[10:]  # its upper half
    sleeve = 0.5 + 0.5 * rng.random()
    trunk = [at("r-shoulder"), at("l-shoulder"), at("l-hip"), at("r-hip")]
    for part, colour in (
        (_legs(at, tall), trousers),
        ([bar for side in "rl" for bar in _arm_of(at, side, tall, 1.0)], skin),
        ([bar for side in "rl" for bar in _arm_of(at, side, tall, sleeve)], shirt),
        (_rounded(trunk, 0.045 * tall), shirt),
        ([_limb(at("neck"), (head_x, head_y), 0.035 * tall, 0.035 * tall)], skin),
        ([ellipse], skin),
        ([crown], hair),
    ):
        cover, top = canvas.stencil(part)
        canvas.paint(cover, colour, depth, top)


def _between(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def _disc(x: float, y: float, radius: float) -> Polygon:
    turns = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return [(x + radius * float(np.cos(turn)), y + radius * float(np.sin(turn))) for turn in turns]


def _limb(a: tuple[float, float], b: tuple[float, float], start: float, end: float) -> Polygon:
    """Return a tapered bar with round ends from `a` (half width `start`) to `b` (half width `end`)."""
    turn = float(np.arctan2(b[1] - a[1], b[0] - a[0]))
    back = np.linspace(turn + np.pi / 2, turn + 3 * np.pi / 2, 7)
    front = np.linspace(turn - np.pi / 2, turn + np.pi / 2, 7)
    return [(a[0] + start * float(np.cos(t)), a[1] + start * float(np.sin(t))) for t in back] + [
        (b[0] + end * float(np.cos(t)), b[1] + end * float(np.sin(t))) for t in front
    ]


def _rounded(corners: list[tuple[float, float]], radius: float) -> list[Polygon]:
    """Return a polygon and bars along its sides, which together round its corners."""
    following = corners[1:] + corners[:1]
    return [corners, *(_limb(a, b, radius, radius) for a, b in zip(corners, following, strict=True))]


def _legs(at: At, tall: float) -> list[Polygon]:
    bars = []
    for side in "rl":
        hip, knee, ankle = at(f"{side}-hip"), at(f"{side}-knee"), at(f"{side}-ankle")
        bars += [_limb(hip, knee, 0.056 * tall, 0.045 * tall), _limb(knee, ankle, 0.045 * tall, 0.032 * tall)]
    return bars


def _arm_of(at: At, side: str, tall: float, share: float) -> list[Polygon]:
    """Return one arm down to `share` of its length."""
    shoulder, elbow, wrist = at(f"{side}-shoulder"), at(f"{side}-elbow"), at(f"{side}-wrist")
    thick = 0.036 * tall
    end = np.asarray(elbow) + (np.asarray(wrist) - np.asarray(elbow)) * max(0.0, 2 * share - 1)
    return [_limb(shoulder, elbow, thick, thick), _limb(elbow, (float(end[0]), float(end[1])), thick, thick * 0.9)]
