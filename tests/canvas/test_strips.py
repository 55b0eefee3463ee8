"""Decoding in strips is decoding: every pixel once, weights that sum to one, no steps, and never more than a tile."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from synccontrol import Montage
from synccontrol.canvas import tiled_decode
from synccontrol.canvas.flat import Layout
from synccontrol.canvas.tiled_decode import Spans, blended
from synccontrol.errors import NonFiniteError
from synccontrol.io import images
from tests.conftest import CELL

steady = settings(deadline=None, derandomize=True, max_examples=60)  # a busy machine is no failure


@st.composite
def spans(draw: st.DrawFn) -> Spans:
    return Spans(length=draw(st.integers(1, 90)), tile=draw(st.integers(1, 40)), closed=draw(st.booleans()))


@steady
@given(spans())
def test_spans_cover_every_cell_and_meet_in_pairs(side: Spans) -> None:
    seen = np.zeros(side.length, dtype=int)
    for start, stop in side.bounds:
        assert stop - start <= side.longest
        np.add.at(seen, np.arange(start, stop) % side.length, 1)
    joins = len(side.bounds) - (not side.closed)
    assert set(seen) <= {1, 2} and (seen == 2).sum() == joins * side.overlap
    for (_, stop), (start, _) in itertools.pairwise(side.bounds):
        assert stop - start == side.overlap
    if side.closed:
        assert side.bounds[0][0] + side.length == side.bounds[-1][1] - side.overlap


@steady
@given(spans())
def test_no_span_is_longer_than_a_tile(side: Spans) -> None:
    tiny_ring = side.closed and side.length < side.overlap * 2  # goes round once more, and still fits
    assert side.longest <= max(side.tile, 1) or tiny_ring
    assert side.closed or side.length > side.tile or side.bounds == ((0, side.length),)


@steady
@given(spans(), st.integers(1, 3))
def test_weights_of_neighbours_sum_to_one(side: Spans, cell: int) -> None:
    """Parts that are all ones blend to ones, and each pixel is the sum of what its spans give it."""
    ramp, size = side.ramp(cell), side.length * cell
    spoilt = int(tiled_decode.TRIM * len(ramp))
    assert (ramp[:spoilt] == 0).all() and (ramp[len(ramp) - spoilt :] == 1).all()
    torch.testing.assert_close(ramp + ramp.flip(0), torch.ones(len(ramp)))
    shares = torch.zeros(len(side.bounds), size)
    for number in range(len(side.bounds)):
        parts = [
            torch.full((1, 1, 1, (stop - start) * cell), float(part == number))
            for part, (start, stop) in enumerate(side.bounds)
        ]
        shares[number] = torch.cat([*blended(parts, ramp, -1, side.closed)], -1)[0, 0, 0]
    torch.testing.assert_close(shares.sum(0), torch.ones(size))


@steady
@given(spans(), st.integers(1, 40), st.integers(1, 3), st.data())
def test_a_decoder_without_neighbours_draws_the_same_in_strips(
    columns: Spans, rows: int, cell: int, data: st.DataObject
) -> None:
    x0 = torch.randn(1, 3, rows, columns.length, generator=torch.Generator().manual_seed(rows))
    height = rows * cell - data.draw(st.integers(0, cell - 1))
    width = columns.length * cell - (0 if columns.closed else data.draw(st.integers(0, cell - 1)))

    def decode(latents: Tensor) -> Tensor:
        return latents.repeat_interleave(cell, -1).repeat_interleave(cell, -2)

    whole = np.asarray(images.to_pil(decode(x0)))[:height, :width]
    made = tiled_decode.decode(x0, decode, cell, height, width, columns.tile, columns.closed)
    assert made.dtype == np.uint8 and np.array_equal(made, whole)


@pytest.mark.parametrize(("height", "width", "loop"), [(8, 12, False), (12, 8, False), (8, 8, True)])
def test_a_canvas_of_one_tile_is_decoded_in_one_call(height: int, width: int, loop: bool) -> None:
    layout = Layout(height=height, width=width, window=(8, 8), stride=4, loop=loop)
    seen: list[tuple[int, ...]] = []

    def decode(x0: Tensor) -> Tensor:
        seen.append(tuple(x0.shape[-2:]))
        return x0

    layout.decode(torch.zeros(1, 3, height, width), decode, 1, height, width)
    assert seen == [layout.decoded]
    assert loop or seen == [(height, width)]


@pytest.mark.parametrize("loop", [False, True])
def test_what_is_decoded_at_once_does_not_grow_with_the_canvas(loop: bool) -> None:
    for tile in (None, 6, 3, 1):
        layout = Layout(height=40, width=200, window=(8, 8), stride=4, loop=loop)
        limit = tile or layout.tile

        def decode(x0: Tensor, limit: int = limit) -> Tensor:
            assert max(x0.shape[-2:]) <= limit
            return x0

        layout.decode(torch.zeros(1, 3, 40, 200), decode, 1, 40, 200, tile)
        assert max(layout.decoded) <= layout.tile


def test_pixels_that_are_no_numbers_are_found() -> None:
    x0 = torch.zeros(1, 3, 8, 60)
    x0[..., 47] = float("nan")
    with pytest.raises(NonFiniteError, match="try dtype float32"):
        Layout(height=8, width=60, window=(8, 8), stride=4).decode(x0, lambda z: z, 1, 8, 60)


@pytest.mark.parametrize("loop", [False, True])
def test_the_bundled_model_draws_the_same_in_strips(loop: bool) -> None:
    montage = Montage.from_pretrained("tiny")
    geometry = montage.denoiser.geometry
    x0 = torch.randn(1, geometry.channels, 48, 160, generator=torch.Generator().manual_seed(0))
    layout = Layout(height=48, width=160, window=geometry.window, stride=16, loop=loop)
    with torch.no_grad():
        made = layout.decode(x0, montage.denoiser.decode, geometry.cell, 384, 1280)
        wrapped = torch.cat([x0[..., -16:], x0, x0[..., :16]], -1) if loop else x0
        whole = np.asarray(images.to_pil(montage.denoiser.decode(wrapped)), dtype=int)
    margin = 128 if loop else 0
    assert np.abs(made.astype(int) - whole[:, margin : margin + 1280]).max() <= 1


def upsampled(x0: Tensor) -> Tensor:
    """Stands for a decoder without neighbours, of `CELL` px per cell."""
    return x0.repeat_interleave(CELL, -1).repeat_interleave(CELL, -2)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(("height", "tile"), [(8, 24), (60, 24), (8, 12)])
def test_what_the_borders_of_tiles_spoil_stays_out_of_the_picture(loop: bool, height: int, tile: int) -> None:
    x0 = torch.rand(1, 3, height, 70, generator=torch.Generator().manual_seed(0)) - 0.5
    spoilt = round(tiled_decode.TRIM * (tile // tiled_decode.TILES_PER_OVERLAP) * CELL)  # px

    def decode(latents: Tensor) -> Tensor:
        picture = upsampled(latents)
        picture[..., :spoilt] = picture[..., -spoilt:] = 1
        if height > tile:
            picture[..., :spoilt, :] = picture[..., -spoilt:, :] = 1
        return picture

    size = height * CELL, 70 * CELL
    good, bad = (tiled_decode.decode(x0, one, CELL, *size, tile, loop) for one in (upsampled, decode))
    rows = slice(spoilt, -spoilt) if height > tile else slice(None)
    columns = slice(None) if loop else slice(spoilt, -spoilt)  # those of the picture are not the tiles' own
    assert np.array_equal(good[rows, columns], bad[rows, columns])


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("tile", [24, 12])
def test_a_decoder_that_looks_at_a_whole_tile_leaves_no_step(loop: bool, tile: int) -> None:
    """As norms do; where its tiles are only laid side by side, colours step."""
    x = torch.arange(96) * 2 * torch.pi / 96
    x0 = (0.8 * x.sin() + 0.2 * (3 * x).cos()).expand(1, 3, 8, 96)

    def decode(latents: Tensor) -> Tensor:
        return upsampled(latents - 0.6 * latents.mean())

    def steps(picture: np.ndarray) -> np.ndarray:
        return np.abs(np.diff(np.concatenate([picture, picture[:, :1]], 1).astype(float), axis=1)).mean(axis=(0, 2))

    own = steps(np.asarray(images.to_pil(upsampled(x0)))).max()  # from cell to cell
    made = steps(tiled_decode.decode(x0, decode, CELL, 8 * CELL, 96 * CELL, tile, loop))
    parts = [decode(x0[..., start : start + tile]) for start in range(0, 96, tile)]
    laid = steps(np.asarray(images.to_pil(torch.cat(parts, -1))))
    assert made[: None if loop else -1].max() < 1.5 * own < 3 * own < laid.max()
