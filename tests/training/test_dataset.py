"""Windows of training against the scenes that they are cut from: all that a window shows comes from one place."""

import numpy as np
import pytest
import torch
from torch import Tensor

from training.cache import HEIGHT, WIDTH
from training.captions import PEOPLE
from training.dataset import CAPTIONS, CELL, CONTROL_SHARES, NARROW, WINDOW, Windows, visible

SCENES, EDGES = 5, WIDTH // CELL
LENGTH = 4  # tokens
EMPTY = torch.full((LENGTH,), -7)
PERSON = 300.0  # px: where the people of odd scenes stand


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    folder = tmp_path_factory.mktemp("encoded")
    scene, column = np.meshgrid(np.arange(SCENES), np.arange(EDGES), indexing="ij")
    latents = np.stack([scene, column], 1)[:, :, None].repeat(HEIGHT // CELL, 2)  # (n, 2, h, w): whose, where
    wide = (scene * EDGES + column).astype(np.uint8)[:, None].repeat(HEIGHT, 1)  # (n, H, w)
    words = np.arange(SCENES)[:, None] * 10 + np.arange(len(PEOPLE))
    joints = np.full((SCENES, 2, 18), np.nan)
    joints[1::2, 0] = PERSON
    np.savez(
        folder / "00000.npz",
        latents=latents.astype(np.float16),
        tokens=words[:, :, None, None].repeat(CAPTIONS, 2).repeat(LENGTH, 3).astype(np.int16),
        depth=wide.repeat(CELL, 2),
        canny=wide,  # the bits of a byte are eight columns
        pose=wide.repeat(CELL, 2)[..., None] // np.arange(1, 4, dtype=np.uint8),
        joints=joints.astype(np.float16),
    )
    return Windows(folder, EMPTY, 0, 1, 0.8, "cpu")


def value(latents: Tensor) -> Tensor:
    """Returns what the fixture wrote at the cells (n, w) of windows."""
    whose, where = latents[:, :, 0].unbind(1)
    return (whose * EDGES + where) % 256


@pytest.mark.parametrize("width", [NARROW, WINDOW])
def test_latents_maps_and_captions_of_a_window_are_of_one_place(windows: Windows, width: int) -> None:
    batch = windows.batch(torch.Generator().manual_seed(0), 200, width)
    assert batch.latents.shape == (200, 2, HEIGHT // CELL, width // CELL)
    assert len(batch.latents.flatten(1).unique(dim=0)) > 50  # of 5 scenes and many left edges
    counts = {control: len(maps) for control, maps in batch.maps.items()}
    assert list(counts) == list(CONTROL_SHARES) and sum(counts.values()) == 160
    depth, canny, pose = batch.latents[:160].split(list(counts.values()))
    pixels = (255 * batch.maps["depth"]).round()
    torch.testing.assert_close(pixels[:, :, 0, ::CELL], value(depth)[:, None].expand(-1, 3, -1))
    bits = batch.maps["canny"][:, 0, 5].unflatten(1, (-1, 8))
    torch.testing.assert_close(bits @ 2.0 ** torch.arange(7, -1, -1), value(canny))
    pixels = (255 * batch.maps["pose"]).round()
    torch.testing.assert_close(pixels[:, 2, 0, ::CELL], value(pose) // 3)
    whose, first = batch.latents[:, 0, 0, 0], CELL * batch.latents[:, 1, 0, 0]
    there = (whose % 2 == 1) & (first <= PERSON) & (first + width > PERSON)
    named = (batch.tokens != EMPTY).any(1)
    assert 100 < named.sum() < 200  # some go without a prompt
    torch.testing.assert_close(batch.tokens[named, 0].float(), (whose * 10 + there)[named])
    assert there[160 - len(pose) : 160].all()  # under a skeleton there is somebody


def test_people_count_with_half_of_their_joints(windows: Windows) -> None:
    xs = np.concatenate([np.full(9, 10.0), np.full(9, np.nan)])[None, None].astype(np.float16)
    assert visible(xs, np.array([0, 8, 16]), 64).tolist() == [[1, 1, 0]]
    xs[..., 0] = np.nan
    assert visible(xs, np.array([0]), 64).tolist() == [[0]]


def test_small_batches_keep_the_shares_in_the_long_run(windows: Windows) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [windows.batch(generator, 5, NARROW).maps for _ in range(400)]
    for control, share in CONTROL_SHARES.items():
        assert sum(len(maps.get(control, ())) for maps in batches) / 1600 == pytest.approx(share, abs=0.03)


def test_a_batch_takes_over_the_values_of_another_in_memory_of_its_own(windows: Windows) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (windows.batch(generator, 50, NARROW) for _ in range(2))
    kept = first.copy()
    taken = first.copy()
    taken.fill(second)
    for one, like in ((taken, second), (first, kept)):
        assert torch.equal(one.latents, like.latents) and torch.equal(one.tokens, like.tokens)
        assert all(torch.equal(maps, like.maps[control]) for control, maps in one.maps.items())
