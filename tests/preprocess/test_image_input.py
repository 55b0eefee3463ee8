"""Converting PIL images of any mode, arrays and tensors to upright 8-bit RGB."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import preprocess
from preprocess.errors import PictureError, PreprocessError
from preprocess.image_input import to_rgb

HEIGHT, WIDTH = 40, 60
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = np.ascontiguousarray(COLOURS[..., 0])
DEPTH = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).round().astype(np.uint16)


def pixels(image: object) -> np.ndarray:
    converted = to_rgb(image)
    assert converted.mode == "RGB" and type(converted) is Image.Image
    return np.asarray(converted)


def turned(image: Image.Image) -> Image.Image:
    """Return an image stored rotated by 90 degrees, with its EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    return Image.open(file)


def drawing(ink: tuple[int, int, int]) -> Image.Image:
    """Return lines of a colour on a transparent background."""
    image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    ImageDraw.Draw(image).line([(5, 5), (50, 30)], fill=(*ink, 255), width=3)
    return image


MODES = sorted({*Image.MODES, "LA", "La", "PA", "RGBX", "RGBa", "I;16", "I;16L", "I;16B", "I;16N"})


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow(mode: str) -> None:
    assert pixels(Image.new(mode, (WIDTH, HEIGHT))).shape == (HEIGHT, WIDTH, 3)


def test_detectors_convert_their_guide() -> None:
    detect = preprocess.load("qr")  # this map is the guide in grey
    assert np.asarray(detect(Image.fromarray(DEPTH))).mean() == pytest.approx(127.5, abs=0.1)
    upright = Image.fromarray(COLOURS)
    assert np.array_equal(np.asarray(detect(turned(upright))), np.asarray(detect(upright)))
    assert detect(drawing((0, 0, 0))).getpixel((2, 30)) == (255, 255, 255)


def test_the_source_is_unchanged() -> None:
    image = Image.fromarray(COLOURS)
    converted = to_rgb(image)
    assert converted is not image
    converted.putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(image), COLOURS)
    array = COLOURS.copy()
    to_rgb(array).putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(array, COLOURS)


def test_a_pose_map_keeps_its_keypoints() -> None:
    pose_map = preprocess.load("pose")(Image.fromarray(COLOURS))
    assert to_rgb(pose_map).info["poses"] == pose_map.info["poses"]


@pytest.mark.parametrize("ink", [(0, 0, 0), (60, 30, 20), (100, 100, 100)])
def test_dark_drawings_get_a_white_background(ink: tuple[int, int, int]) -> None:
    converted = to_rgb(drawing(ink))
    assert converted.getpixel((2, 30)) == (255, 255, 255)
    assert converted.getpixel((5, 5)) == ink
    assert to_rgb(drawing(ink), 2).getpixel((1, 15)) == (255, 255, 255)


@pytest.mark.parametrize("ink", [(255, 255, 255), (153, 0, 0), (0, 0, 255), (200, 100, 50)])
def test_other_transparent_images_get_a_black_background(ink: tuple[int, int, int]) -> None:
    converted = to_rgb(drawing(ink))  # white lines, limbs, photographs
    assert converted.getpixel((2, 30)) == (0, 0, 0)
    assert converted.getpixel((5, 5)) == ink


def test_fully_transparent_images_are_black() -> None:
    assert not pixels(Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))).any()


def test_all_row_groups_have_the_same_background(monkeypatch: pytest.MonkeyPatch) -> None:
    image = drawing((0, 0, 0))
    ImageDraw.Draw(image).rectangle(
        [0, 36, 5, 39], fill=(255, 255, 255, 255)
    )  # this row group alone has a black background
    whole = pixels(image)
    monkeypatch.setattr("preprocess.image_input.ROW_PIXELS", 4 * WIDTH)
    assert np.array_equal(pixels(image), whole)


ARRAYS = {
    "grey": (GREY, GREY),
    "grey (H, W, 1)": (GREY[..., None], GREY),
    "RGB": (COLOURS, COLOURS),
    "mirrored RGB, not contiguous": (COLOURS[:, ::-1], COLOURS[:, ::-1]),
    "RGBA": (np.dstack([COLOURS, np.full_like(GREY, 255)]), COLOURS),
    "16 bit": (GREY.astype(np.uint16) * 257, GREY),
    "16 bit, big end first": ((GREY.astype(np.uint16) * 257).astype(">u2"), GREY),
    "16 bit RGB": (COLOURS.astype(np.uint16) * 257, COLOURS),
    "8 bits in 16": (GREY.astype(np.uint16), GREY),
    "bool": (GREY > 127, (GREY > 127) * np.uint8(255)),
    "floats": (COLOURS / 255, COLOURS),
    "half floats": ((GREY / 255).astype(np.float16), GREY),
    "float RGBA": (np.dstack([COLOURS / 255, np.ones_like(GREY)]), COLOURS),
    "floats a little beyond 1": ((GREY / 255 * 1.0005).astype(np.float32), GREY),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name: str) -> None:
    array, expected = ARRAYS[name]
    expected = expected if expected.ndim == 3 else expected[..., None]
    assert np.array_equal(pixels(array), np.broadcast_to(expected, COLOURS.shape))


def test_a_transparent_array_gets_a_background() -> None:
    assert pixels(np.asarray(drawing((0, 0, 0))) / 255)[30, 2].tolist() == [255, 255, 255]


PLANES = torch.from_numpy(COLOURS).permute(2, 0, 1)


@pytest.mark.parametrize("shape", ["chw", "1chw", "hw", "1hw", "11hw"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors(shape: str, dtype: torch.dtype) -> None:
    planes = PLANES if "c" in shape else PLANES[:1]
    tensor = planes if dtype == torch.uint8 else (planes / 255).to(dtype).requires_grad_()
    tensor = {"1chw": tensor[None], "11hw": tensor[None], "hw": tensor[0]}.get(shape, tensor)
    slack = 1 if dtype == torch.bfloat16 else 0
    expected = np.broadcast_to(planes.permute(1, 2, 0).numpy(), COLOURS.shape).astype(int)
    assert np.abs(pixels(tensor) - expected).max() <= slack


def damaged() -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()[:2000]))


REFUSED = {
    "a path": ("wide.png", r"'wide.png' is a path, not an image; open it with PIL.Image.open"),
    "a Path": (Path("wide.png"), "is a path"),
    "None": (None, "None is not an image; a PIL image, an array"),
    "a list": ([Image.fromarray(COLOURS)], "a list is not an image"),
    "a number": (3, "a int is not an image"),
    "planes first": (COLOURS.transpose(2, 0, 1), r"an array \(3, 40, 60\) is not an image; .* \(H, W, 3\)"),
    "a row": (GREY[0], r"an array \(60,\)"),
    "two channels": (COLOURS[..., :2], r"\(40, 60, 2\)"),
    "nothing": (COLOURS[:0], "empty"),
    "an empty image": (Image.new("RGB", (0, 5)), "0x5 px is empty"),
    "floats to 255": (COLOURS.astype(float), r"floats from 0 to 255 has no known white.*in 0\.\.1"),
    "floats from -1": (COLOURS / 127.5 - 1, "floats from -1 to 1"),
    "NaN": (np.where(GREY > 9, GREY / 255, np.nan), "nan"),
    "whole numbers": (COLOURS.astype(int), "int64 values has no known white; uint8"),
    "text": (np.full((4, 4), "a"), "no known white"),
    "channels last": (torch.from_numpy(COLOURS), r"a tensor \(40, 60, 3\) is not an image; .* tensor"),
    "two images": (torch.zeros(2, 3, 4, 4), r"\(2, 3, 4, 4\)"),
    "latents": (torch.zeros(1, 4, 4, 4), r"\(1, 4, 4, 4\)"),
    "a damaged file": (damaged(), "cut short"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_images_raise_an_error_of_one_line(name: str) -> None:
    value, message = REFUSED[name]
    with pytest.raises(PictureError, match=message) as error:
        preprocess.load("canny")(value)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, PreprocessError) and isinstance(error.value, ValueError)


def test_converting_does_not_import_torch() -> None:
    code = "import sys, preprocess, numpy; preprocess.to_rgb(numpy.zeros((4, 4))); print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"
