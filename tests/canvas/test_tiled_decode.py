"""Tiled decoding equals decoding: weights sum to one, there are no steps, and no tile is too large."""

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
from synccontrol.canvas.tiled_decode import Spans, blend
from synccontrol.errors import NonFiniteError
from synccontrol.io import images
from tests.conftest import CELL

steady = settings(deadline=None, derandomize=True, max_examples=60)  # slow machines must not fail


@st.composite
def spans(draw: st.DrawFn) -> Spans:
    return Spans(length=draw(st.integers(1, 90)), tile=draw(st.integers(1, 40)), closed=draw(st.booleans()))


@steady
@given(spans())
def test_spans_cover_every_cell_and_overlap_in_pairs(side: Spans) -> None:
    count = np.zeros(side.length, dtype=int)
    for start, stop in side.bounds:
        assert stop - start <= side.longest
        np.add.at(count, np.arange(start, stop) % side.length, 1)
    joins = len(side.bounds) - (not side.closed)
    assert set(count) <= {1, 2} and (count == 2).sum() == joins * side.overlap
    for (_, stop), (start, _) in itertools.pairwise(side.bounds):
        assert stop - start == side.overlap
    if side.closed:
        assert side.bounds[0][0] + side.length == side.bounds[-1][1] - side.overlap


@steady
@given(spans())
def test_no_span_is_longer_than_a_tile(side: Spans) -> None:
    tiny_ring = side.closed and side.length < side.overlap * 2  # the overlap covers it twice
    assert side.longest <= max(side.tile, 1) or tiny_ring
    assert side.closed or side.length > side.tile or side.bounds == ((0, side.length),)


@steady
@given(spans(), st.integers(1, 3))
def test_weights_of_neighbours_sum_to_one(side: Spans, cell: int) -> None:
    """Spans of ones blend to ones."""
    ramp, size = side.ramp(cell), side.length * cell
    unused = int(tiled_decode.TRIM * len(ramp))
    assert (ramp[:unused] == 0).all() and (ramp[len(ramp) - unused :] == 1).all()
    torch.testing.assert_close(ramp + ramp.flip(0), torch.ones(len(ramp)))
    shares = torch.zeros(len(side.bounds), size)
    for index in range(len(side.bounds)):
        parts = [
            torch.full((1, 1, 1, (stop - start) * cell), float(part == index))
            for part, (start, stop) in enumerate(side.bounds)
        ]
        shares[index] = torch.cat([*blend(parts, ramp, -1, side.closed)], -1)[0, 0, 0]
    torch.testing.assert_close(shares.sum(0), torch.ones(size))


@steady
@given(spans(), st.integers(1, 40), st.integers(1, 3), st.data())
def test_tiling_a_decoder_without_receptive_field_is_exact(
    columns: Spans, rows: int, cell: int, data: st.DataObject
) -> None:
    x0 = torch.randn(1, 3, rows, columns.length, generator=torch.Generator().manual_seed(rows))
    height = rows * cell - data.draw(st.integers(0, cell - 1))
    width = columns.length * cell - (0 if columns.closed else data.draw(st.integers(0, cell - 1)))

    def decode(latents: Tensor) -> Tensor:
        return latents.repeat_interleave(cell, -1).repeat_interleave(cell, -2)

    whole = np.asarray(images.to_pil(decode(x0)))[:height, :width]
    tiled = tiled_decode.decode(x0, decode, cell, height, width, columns.tile, columns.closed)
    assert tiled.dtype == np.uint8 and np.array_equal(tiled, whole)


@pytest.mark.parametrize(("height", "width", "loop"), [(8, 12, False), (12, 8, False), (8, 8, True)])
def test_a_canvas_of_one_tile_is_decoded_in_one_call(height: int, width: int, loop: bool) -> None:
    layout = Layout(height=height, width=width, window=(8, 8), stride=4, loop=loop)
    shapes: list[tuple[int, ...]] = []

    def decode(x0: Tensor) -> Tensor:
        shapes.append(tuple(x0.shape[-2:]))
        return x0

    layout.decode(torch.zeros(1, 3, height, width), decode, 1, height, width)
    assert shapes == [layout.decode_shape]
    assert loop or shapes == [(height, width)]


@pytest.mark.parametrize("loop", [False, True])
def test_the_tile_size_is_independent_of_the_canvas(loop: bool) -> None:
    for tile in (None, 6, 3, 1):
        layout = Layout(height=40, width=200, window=(8, 8), stride=4, loop=loop)
        limit = tile or layout.tile

        def decode(x0: Tensor, limit: int = limit) -> Tensor:
            assert max(x0.shape[-2:]) <= limit
            return x0

        layout.decode(torch.zeros(1, 3, 40, 200), decode, 1, 40, 200, tile)
        assert max(layout.decode_shape) <= layout.tile


def test_non_finite_pixels_raise_an_error() -> None:
    x0 = torch.zeros(1, 3, 8, 60)
    x0[..., 47] = float("nan")
    with pytest.raises(NonFiniteError, match="try dtype float32"):
        Layout(height=8, width=60, window=(8, 8), stride=4).decode(x0, lambda z: z, 1, 8, 60)


@pytest.mark.parametrize("loop", [False, True])
def test_tiling_the_bundled_decoder_is_exact(loop: bool) -> None:
    montage = Montage.from_pretrained("tiny")
    geometry = montage.denoiser.geometry
    x0 = torch.randn(1, geometry.channels, 48, 160, generator=torch.Generator().manual_seed(0))
    layout = Layout(height=48, width=160, window=geometry.window, stride=16, loop=loop)
    with torch.no_grad():
        tiled = layout.decode(x0, montage.denoiser.decode, geometry.cell, 384, 1280)
        wrapped = torch.cat([x0[..., -16:], x0, x0[..., :16]], -1) if loop else x0
        whole = np.asarray(images.to_pil(montage.denoiser.decode(wrapped)), dtype=int)
    margin = 128 if loop else 0
    assert np.abs(tiled.astype(int) - whole[:, margin : margin + 1280]).max() <= 1


def upsampled(x0: Tensor) -> Tensor:
    """Return the output of a decoder without receptive field, of `CELL` px per cell."""
    return x0.repeat_interleave(CELL, -1).repeat_interleave(CELL, -2)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(("height", "tile"), [(8, 24), (60, 24), (8, 12)])
def test_distorted_tile_borders_are_not_used(loop: bool, height: int, tile: int) -> None:
    x0 = torch.rand(1, 3, height, 70, generator=torch.Generator().manual_seed(0)) - 0.5
    distorted = round(tiled_decode.TRIM * (tile // tiled_decode.TILES_PER_OVERLAP) * CELL)  # px

    def decode(latents: Tensor) -> Tensor:
        image = upsampled(latents)
        image[..., :distorted] = image[..., -distorted:] = 1
        if height > tile:
            image[..., :distorted, :] = image[..., -distorted:, :] = 1
        return image

    size = height * CELL, 70 * CELL
    expected, tiled = (tiled_decode.decode(x0, decoder, CELL, *size, tile, loop) for decoder in (upsampled, decode))
    rows = slice(distorted, -distorted) if height > tile else slice(None)
    columns = slice(None) if loop else slice(distorted, -distorted)  # the borders of the image are distorted in both
    assert np.array_equal(expected[rows, columns], tiled[rows, columns])


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("tile", [24, 12])
def test_a_decoder_with_norms_over_the_tile_leaves_no_step(loop: bool, tile: int) -> None:
    """Norms see a whole tile, so tiles placed side by side have steps in colour."""
    x = torch.arange(96) * 2 * torch.pi / 96
    x0 = (0.8 * x.sin() + 0.2 * (3 * x).cos()).expand(1, 3, 8, 96)

    def decode(latents: Tensor) -> Tensor:
        return upsampled(latents - 0.6 * latents.mean())

    def steps(image: np.ndarray) -> np.ndarray:
        return np.abs(np.diff(np.concatenate([image, image[:, :1]], 1).astype(float), axis=1)).mean(axis=(0, 2))

    cell_steps = steps(np.asarray(images.to_pil(upsampled(x0)))).max()  # between cells
    tiled_steps = steps(tiled_decode.decode(x0, decode, CELL, 8 * CELL, 96 * CELL, tile, loop))
    parts = [decode(x0[..., start : start + tile]) for start in range(0, 96, tile)]
    side_by_side_steps = steps(np.asarray(images.to_pil(torch.cat(parts, -1))))
    assert tiled_steps[: None if loop else -1].max() < 1.5 * cell_steps < 3 * cell_steps < side_by_side_steps.max()
