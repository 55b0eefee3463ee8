"""Windows of flat canvases and rings: they cover every cell, and crops match their positions."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synccontrol.canvas.base import Merger
from synccontrol.canvas.flat import Layout, lay_out
from synccontrol.errors import ConfigError
from synccontrol.spec.settings import Geometry, WindowConfig

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("steady")


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    h, w = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    return Layout(
        height=draw(st.integers(h, 40)),
        width=draw(st.integers(w, 60)),
        window=(h, w),
        stride=draw(st.integers(1, min(h, w) - 1)),
        loop=draw(st.booleans()),
    )


def coverage(layout: Layout) -> torch.Tensor:
    """Return the number of windows that cover each cell."""
    count = torch.zeros(layout.height, layout.width)
    for top, left in layout.origins:
        for y in range(top, top + layout.window[0]):
            for x in range(left, left + layout.window[1]):
                assert layout.loop or x < layout.width
                count[y, x % layout.width] += 1
    return count


@given(layouts())
def test_every_cell_is_covered(layout: Layout) -> None:
    assert coverage(layout).min() >= 1


@given(layouts())
def test_neighbours_are_at_most_one_stride_apart(layout: Layout) -> None:
    lefts = sorted({left for _, left in layout.origins})
    gaps = [right - left for left, right in itertools.pairwise(lefts)]
    if layout.loop:
        gaps.append(layout.width - lefts[-1])
    assert all(0 < gap <= layout.stride for gap in gaps)


def numbered(height: int, width: int) -> torch.Tensor:
    """Return an image (1, 1, height, width) of distinct pixels."""
    return torch.arange(height * width, dtype=torch.float64).reshape(1, 1, height, width)


@given(layouts())
def test_crop_returns_the_cells_of_each_window(layout: Layout) -> None:
    canvas = numbered(layout.height, layout.width)
    windows = layout.crop(canvas)
    assert len(windows) == len(layout)
    for (top, left), window in zip(layout.origins, windows, strict=True):
        rows = torch.arange(top, top + layout.window[0])
        columns = torch.arange(left, left + layout.window[1]) % layout.width
        assert torch.equal(window[0], canvas[0, 0][rows][:, columns])


@given(layouts(), st.integers(1, 3), st.data())
def test_image_crops_match_their_windows_and_repeat_the_border(layout: Layout, cell: int, data: st.DataObject) -> None:
    missing = data.draw(st.integers(0, cell - 1)), 0 if layout.loop else data.draw(st.integers(0, cell - 1))
    height, width = layout.height * cell - missing[0], layout.width * cell - missing[1]
    image = numbered(height, width)
    indices = data.draw(st.lists(st.integers(0, len(layout) - 1), min_size=1, max_size=5))
    crops = layout.crop_image(image, cell, indices)
    for window, crop in zip(indices, crops, strict=True):
        (top, left), (h, w) = layout.origins[window], layout.window
        rows = torch.arange(top * cell, (top + h) * cell).clamp(max=height - 1)
        columns = torch.arange(left * cell, (left + w) * cell)
        columns = columns % width if layout.loop else columns.clamp(max=width - 1)
        assert torch.equal(crop[0], image[0, 0][rows][:, columns])


@given(layouts())
def test_crops_of_8_bit_images_equal_those_of_floats(layout: Layout) -> None:
    height, width = layout.height * 2 - (not layout.loop), layout.width * 2  # odd sizes, so that the border is repeated
    image = torch.arange(3 * height * width).remainder(256).to(torch.uint8).reshape(1, 3, height, width)
    assert torch.equal(
        layout.crop_image(image, 2, range(len(layout))), layout.crop_image(image / 255, 2, range(len(layout)))
    )


@given(layouts())
def test_the_middle_window_is_near_the_centre(layout: Layout) -> None:
    """Within a stride, because the last window of a row is moved to the edge and windows are counted, as published."""
    (top, left), (h, w) = layout.origins[layout.middle], layout.window
    assert abs(top + h / 2 - layout.height / 2) <= layout.stride
    assert abs(left + w / 2 - layout.width / 2) <= layout.stride + layout.loop * w


@pytest.mark.parametrize(
    ("height", "width", "loop", "middle"),
    [
        (8, 32, False, (0, 12)),  # in one row, n // 2
        (8, 36, False, (0, 16)),  # the later of two
        (8, 32, True, (0, 16)),
        (12, 32, False, (4, 12)),  # two rows: not the left window of the lower row
        (16, 32, False, (4, 12)),
        (40, 8, False, (16, 0)),
    ],
)
def test_the_middle_window(height: int, width: int, loop: bool, middle: tuple[int, int]) -> None:
    layout = Layout(height=height, width=width, window=(8, 8), stride=4, loop=loop)
    assert layout.origins[layout.middle] == middle
    if height == 8:
        assert layout.middle == len(layout) // 2


@given(layouts(), st.sampled_from(["uniform", "ramp", "gaussian"]))
def test_merging_crops_restores_the_canvas(layout: Layout, weights: str) -> None:
    canvas = torch.randn(1, 3, layout.height, layout.width, dtype=torch.float64)
    assert torch.allclose(Merger(layout, weights, canvas)(layout.crop(canvas)), canvas, atol=1e-12)


@given(layouts())
def test_uniform_merge_is_the_plain_average(layout: Layout) -> None:
    windows = torch.randn(len(layout), 1, *layout.window, dtype=torch.float64)
    total = torch.zeros(layout.height, layout.width, dtype=torch.float64)
    for (top, left), window in zip(layout.origins, windows, strict=True):
        for y in range(layout.window[0]):
            for x in range(layout.window[1]):
                total[top + y, (left + x) % layout.width] += window[0, y, x]
    merged = Merger(layout, "uniform", windows)(windows)
    assert torch.allclose(merged[0, 0], total / coverage(layout), atol=1e-12)


def test_ramp_and_gaussian_weights_are_largest_in_the_middle() -> None:
    layout = Layout(height=8, width=12, window=(8, 8), stride=4)
    windows = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    for weights in ("ramp", "gaussian"):
        row = Merger(layout, weights, windows)(windows)[0, 0, 4]
        overlap = row[4:8]
        assert torch.all(overlap[1:] > overlap[:-1])
        assert torch.allclose(overlap + overlap.flip(0), torch.ones(4))


@given(st.integers(64, 400), st.integers(64, 400))
def test_sizes_are_rounded_up_to_whole_cells(height: int, width: int) -> None:
    geometry = Geometry(window=(8, 8), cell=8, channels=4)
    layout = lay_out(height, width, geometry, WindowConfig(stride=4).complete())
    assert 0 <= layout.height * 8 - height < 8
    assert 0 <= layout.width * 8 - width < 8


@pytest.mark.parametrize(
    ("height", "width", "windows", "message"),
    [
        (63, 200, WindowConfig(stride=4).complete(), "below one window"),
        (64, 200, WindowConfig(stride=8).complete(), "between 1 and 7"),
        (64, 201, WindowConfig(stride=4, loop=True).complete(), "use 200 or 208"),
        (64, 10**10, WindowConfig(stride=4).complete(), "beyond 300 megapixels"),
    ],
)
def test_invalid_sizes_raise_an_error_with_an_alternative(
    height: int, width: int, windows: WindowConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        lay_out(height, width, Geometry(window=(8, 8), cell=8, channels=4), windows)


def test_one_window_needs_no_stride() -> None:
    geometry = Geometry(window=(8, 8), cell=8, channels=4)
    assert lay_out(64, 64, geometry, WindowConfig(stride=16).complete()).origins == ((0, 0),)
