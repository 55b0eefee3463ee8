"""Measures the bundled detectors on scenes that they have not seen: `python -m training.detector_scores`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synccontrol.preprocess.estimators.bundled import MODELS, BundledDepth, BundledPose
from synccontrol.preprocess.people.skeleton import NECK
from training.render import Scene, render

Floats = npt.NDArray[np.float32]

HEIGHT, WIDTH = 256, 1536  # px
SEED = 2**31  # training counts its seeds from 0
WHITE = 255
PCK = 0.1  # of the person's height: how far a joint may be off


@dataclass(frozen=True, kw_only=True)
class PoseScore:
    """How well people were found."""

    people: int  # in truth
    found: int  # of them
    extra: int  # people that are not there
    joints: int  # visible in truth
    right: int  # of them: in a found person, at most `PCK` of the person's height off


def held_out(count: int, people: int | None = None) -> list[Scene]:
    """Returns `count` wide scenes that no training run has seen."""
    rng = np.random.default_rng(SEED)
    return [render(rng, height=HEIGHT, width=WIDTH, people=people) for _ in range(count)]


def depth_rmse(estimate: Floats, truth: Floats) -> float:
    """Returns the root mean square error of nearness (H, W) in 0..1, in grey levels 0..255."""
    return float(WHITE * np.sqrt(np.mean((estimate - truth) ** 2)))


def pose_score(found: Floats, truth: Floats) -> PoseScore:
    """Returns how well people `found` (n, 18, 3) fit the `truth` (m, 18, 3); the nearest necks are matched first."""
    heights = np.array([np.ptp(person[person[:, 2] > 0, 1]) for person in truth], np.float32)
    apart = np.linalg.norm(truth[:, None, NECK, :2] - found[None, :, NECK, :2], axis=2)
    matches: dict[int, int] = {}
    for flat in np.argsort(apart, axis=None, kind="stable"):
        person, other = (int(index) for index in np.unravel_index(flat, apart.shape))
        near = apart[person, other] <= PCK * heights[person]
        if near and person not in matches and other not in matches.values():
            matches[person] = other
    right = 0
    for person, other in matches.items():
        both = (truth[person, :, 2] > 0) & (found[other, :, 2] > 0)
        off = np.linalg.norm(truth[person, both, :2] - found[other, both, :2], axis=1)
        right += int((off <= PCK * heights[person]).sum())
    joints = int((truth[:, :, 2] > 0).sum())
    extra = len(found) - len(matches)
    return PoseScore(people=len(truth), found=len(matches), extra=extra, joints=joints, right=right)


def score_depth(folder: Path, count: int) -> str:
    """Returns a line with the error of the depth network in `folder`, and of the best picture of rows alone."""
    estimate = BundledDepth("cpu", folder)
    scenes = held_out(count)
    errors = [depth_rmse(estimate(scene.image), scene.depth) for scene in scenes]
    rows = np.mean([scene.depth.mean(axis=1, keepdims=True) for scene in scenes], axis=0)
    blind = [depth_rmse(rows, scene.depth) for scene in scenes]
    return f"depth RMSE {np.mean(errors):.1f} of 255 (worst {np.max(errors):.1f}); mean row alone {np.mean(blind):.1f}"


def score_pose(folder: Path, count: int) -> str:
    """Returns a line with the recall and the false people of the pose network in `folder`."""
    estimate = BundledPose("cpu", folder)
    scores = [pose_score(estimate(scene.image), scene.people) for scene in held_out(count, people=6)]
    people, found, extra, joints, right = (
        sum(getattr(score, name) for score in scores) for name in ("people", "found", "extra", "joints", "right")
    )
    return (
        f"pose: {found} of {people} people ({found / people:.0%}), {extra} that are not there; "
        f"PCK@{PCK} {right / joints:.0%} of {joints} joints"
    )


def main() -> None:
    """Prints the figures of both detectors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS, help="folder with depth/ and pose/")
    parser.add_argument("--scenes", type=int, default=40, help="scenes of 256x1536 px, default 40")
    options = parser.parse_args()
    print(score_depth(options.models / "depth", options.scenes))
    print(score_pose(options.models / "pose", options.scenes))


if __name__ == "__main__":
    main()
