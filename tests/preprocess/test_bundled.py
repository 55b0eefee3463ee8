"""The bundled detectors on scenes with known depth and people, and their training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import preprocess
from preprocess.estimators.bundled import CELL, MODELS, VOTE_UNIT, MapNet, MapNetConfig, people_from_maps
from preprocess.people.skeleton import JOINTS, NECK, draw
from training.detector_data import MIRRORED, Cut, Sample, cut_out, distort, samples, scenes
from training.detector_losses import depth_loss, pose_loss, pose_targets
from training.detector_scores import depth_rmse, held_out, pose_score, score_depth, score_pose
from training.render import render
from training.train_detectors import Recipe, Trainer, train

DEPTH_FLOOR = 24.0  # grey levels; largest RMSE of the bundled depth on wide held-out scenes with many people
ROW_SHARE = 0.8  # of the error of a prediction by the row alone
RECALL_FLOOR = 0.7  # smallest recall of people in wide held-out scenes
SMALL = Cut(height=64, width=64)


@pytest.fixture(scope="module")
def wide() -> list:  # type: ignore[type-arg]
    """Return held-out wide scenes with people."""
    return held_out(3, people=5)


def test_near_is_white_and_depth_is_close_to_the_truth(wide: list) -> None:  # type: ignore[type-arg]
    detect = preprocess.load("depth")
    for scene in wide:
        depth = np.asarray(detect(Image.fromarray(scene.image)).convert("L"), np.float32) / 255
        assert np.corrcoef(depth.ravel(), scene.depth.ravel())[0, 1] > 0.95
        row_error = depth_rmse(scene.depth.mean(axis=1, keepdims=True), scene.depth)
        assert depth_rmse(depth, scene.depth) < min(DEPTH_FLOOR, ROW_SHARE * row_error)


def test_pose_detects_most_people(wide: list) -> None:  # type: ignore[type-arg]
    from preprocess.estimators.bundled import BundledPose

    estimate = BundledPose("cpu")
    scores = [pose_score(estimate(scene.image), scene.people) for scene in wide]
    assert sum(score.found for score in scores) >= RECALL_FLOOR * sum(score.people for score in scores)


def test_pose_of_an_empty_landscape_is_black() -> None:
    scene = render(np.random.default_rng(8), height=256, width=512, people=0)
    assert not np.asarray(preprocess.load("pose")(Image.fromarray(scene.image))).any()


def test_shifting_the_guide_shifts_the_depth() -> None:
    scene = render(np.random.default_rng(5), height=256, width=768, people=2)
    detect, step = preprocess.load("depth"), 32
    whole = np.asarray(detect(Image.fromarray(scene.image)), np.float32)
    moved = np.asarray(detect(Image.fromarray(np.ascontiguousarray(scene.image[:, step:]))), np.float32)
    inner = np.s_[:, 256:-256]  # without the borders, whose padding differs
    assert np.abs(whole[:, step:][inner] - moved[inner]).max() <= 2


def test_bundled_networks_are_small_and_half_precision() -> None:
    files = list(MODELS.glob("*/model.safetensors"))
    assert {path.parent.name for path in files} == {"depth", "pose"}
    assert sum(path.stat().st_size for path in files) <= 3 * 2**20
    assert not list(MODELS.rglob("*.pt"))


def test_a_saved_network_is_loaded_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = MapNet(MapNetConfig(channels=3, widths=(4, 6, 8), full_resolution=4)).half().float().eval()
    network.save(tmp_path)
    loaded = MapNet.load(tmp_path)
    image = torch.rand(1, 3, 64, 96)
    assert loaded.config == network.config
    assert network(image).shape == (1, 3, 64, 96)
    assert torch.equal(network(image), loaded(image))


def test_perfect_maps_restore_the_people() -> None:
    scene = render(np.random.default_rng(2), height=256, width=320, people=2)
    heatmaps, votes, near = pose_targets([scene.people], 256 // CELL, 320 // CELL)
    assert near.max() == 1
    people = people_from_maps(heatmaps[0].numpy(), votes[0].numpy() * VOTE_UNIT)
    people[..., :2] = (people[..., :2] + 0.5) * CELL - 0.5
    score = pose_score(people, scene.people)
    assert (score.found, score.extra) == (len(scene.people), 0)
    assert score.right >= 0.95 * score.joints


def test_losses_are_smallest_at_the_truth() -> None:
    truth = torch.rand(2, 32, 32)
    assert depth_loss(truth, truth) == 0
    assert depth_loss(truth.flip(1), truth) > 0
    scene = render(np.random.default_rng(2), height=128, width=128, people=1)
    targets = pose_targets([scene.people], 64, 64)
    logits = torch.logit(targets[0].clamp(1e-4, 1 - 1e-4))
    good = pose_loss(torch.cat([logits, targets[1].flatten(1, 2)], dim=1), *targets)
    assert good < pose_loss(torch.cat([-logits, targets[1].flatten(1, 2)], dim=1), *targets)
    assert good < pose_loss(torch.cat([logits, 1 - targets[1].flatten(1, 2)], dim=1), *targets)


def test_mirroring_swaps_left_and_right() -> None:
    assert [MIRRORED[joint] for joint in MIRRORED] == list(range(len(JOINTS)))
    assert JOINTS[MIRRORED[JOINTS.index("left knee")]] == "right knee" and MIRRORED[NECK] == NECK


def test_crops_align_image_depth_and_people() -> None:
    rng = np.random.default_rng(0)
    people = render(np.random.default_rng(4), height=128, width=256, people=2).people
    marks = draw(people, 128, 256)
    scene = Sample(marks, marks.max(axis=-1).astype(np.float32) / 255, people)
    cut = Cut(height=128, width=128)
    visible_joints = 0
    for _ in range(20):
        sample = cut_out(rng, scene, cut)
        assert sample.image.shape == (128, 128, 3) and sample.depth.shape == (128, 128)
        assert np.mean((sample.image.max(axis=-1) > 0) != (sample.depth > 0)) < 0.02
        for x, y, visible in sample.people.reshape(-1, 3):
            if visible:
                visible_joints += 1
                assert sample.image[max(0, int(y) - 3) : int(y) + 4, max(0, int(x) - 3) : int(x) + 4].any()
    assert visible_joints > 50


def test_distortions_preserve_shape_and_range() -> None:
    rng, image = np.random.default_rng(0), held_out(1)[0].image[:64, :96]
    distorted = [distort(rng, image) for _ in range(40)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in distorted)
    assert sum(not np.array_equal(result, image) for result in distorted) > 20


@pytest.mark.parametrize("kind", ["depth", "pose"])
def test_training_lowers_the_loss_and_resumes(kind: str, tmp_path: Path) -> None:
    recipe = Recipe(samples=48, scenes=2, batch=2)
    rng = np.random.default_rng(0)
    stream = samples(rng, scenes(rng, 2, SMALL, most_people=2), SMALL)
    trainer = Trainer(kind, recipe, tmp_path)
    batch = [next(stream) for _ in range(recipe.batch)]
    losses = [trainer.learn(batch) for _ in range(20)]
    assert losses[-1] < losses[0]
    trainer.save()
    again = Trainer(kind, recipe, tmp_path)
    assert again.step == trainer.step
    assert again.learn(batch) == pytest.approx(trainer.learn(batch), rel=1e-4)


def test_a_complete_run_saves_only_the_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("depth", Recipe(samples=4, scenes=1, batch=2), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert "2/2" in capsys.readouterr().out
    assert "depth RMSE" in score_depth(tmp_path, 1)


def test_scores_count_missed_people() -> None:
    truth = held_out(1, people=4)[0].people
    assert pose_score(truth, truth).found == len(truth)
    assert pose_score(truth, truth).right == (truth[..., 2] > 0).sum()
    half = pose_score(truth[:1], truth)
    assert (half.found, half.extra, half.people) == (1, 0, len(truth))
    nobody = pose_score(np.zeros((0, 18, 3), np.float32), truth)
    assert (nobody.found, nobody.right) == (0, 0)
    assert "people" in score_pose(MODELS / "pose", 1)
