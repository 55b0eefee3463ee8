"""Image files of every kind become upright 8-bit RGB images, or raise an error of one line."""

import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from synccontrol.errors import InputError
from synccontrol.io import images


def gradient() -> np.ndarray:
    return np.linspace(0, 255, 40 * 60).reshape(40, 60)


def save(tmp_path: Path, image: Image.Image, **options: object) -> Image.Image:
    path = tmp_path / "guide.png"
    image.save(path, **options)
    return images.open_image(path)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    wide = Image.fromarray((gradient() / 255 * 65535).round().astype(np.uint16))
    grey = np.asarray(save(tmp_path, wide))[..., 0].astype(float)
    assert np.abs(grey - gradient()).max() <= 1


def test_palettes_keep_their_colours(tmp_path: Path) -> None:
    colours = Image.fromarray(np.random.default_rng(0).choice([0, 128, 255], (40, 60, 3)).astype(np.uint8))
    assert np.array_equal(np.asarray(save(tmp_path, colours.quantize(27))), np.asarray(colours))


def test_transparent_parts_are_black(tmp_path: Path) -> None:
    half = Image.new("RGBA", (60, 40), (200, 100, 50, 255))
    half.paste((200, 100, 50, 0), (0, 0, 30, 40))
    opened = save(tmp_path, half)
    assert opened.getpixel((10, 10)) == (0, 0, 0)
    assert opened.getpixel((50, 10)) == (200, 100, 50)


COLOURS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_sixteen_bit_colours_keep_their_upper_byte(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), COLOURS[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(images.open_image(path)), COLOURS)


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats_are_scaled_by_their_range(tmp_path: Path, white: float) -> None:
    path = tmp_path / "depth.tif"
    values = (gradient() / 255 * white).astype(np.float32)
    values[0, 0] = np.nan
    Image.fromarray(values).save(path)
    grey = np.asarray(images.open_image(path))[..., 0].astype(float)
    assert np.abs(grey - gradient()).max() <= 0.6


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_sixteen_bit_tiffs_of_either_byte_order(tmp_path: Path, byte_order: str) -> None:
    path = tmp_path / "depth.tif"
    Image.fromarray((gradient() * 257).astype(byte_order)).save(path)
    grey = np.asarray(images.open_image(path))[..., 0].astype(float)
    assert np.abs(grey - gradient()).max() <= 1


def half_transparent(mode: str) -> Image.Image:
    """Return an image of a mode: the left half is transparent, the right half is (200, 100, 50) or grey 200."""
    half = Image.new("RGBA", (60, 40), (200, 100, 50, 255) if mode == "P" else (200, 200, 200, 255))
    half.paste((90, 90, 90, 0), (0, 0, 30, 40))
    if mode == "RGB":
        image = half.convert("RGB")
        image.info["transparency"] = (90, 90, 90)
        return image
    return half.quantize(8) if mode == "P" else half.convert(mode)


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "RGB"])
def test_every_kind_of_transparency_is_black(tmp_path: Path, mode: str) -> None:
    image = half_transparent(mode)
    opened = save(tmp_path, image, **{key: image.info[key] for key in ("transparency",) if key in image.info})
    assert opened.getpixel((10, 10)) == (0, 0, 0)
    assert opened.getpixel((50, 10)) == ((200, 100, 50) if mode == "P" else (200, 200, 200))


def test_bilevel_and_cmyk_images(tmp_path: Path) -> None:
    two = Image.fromarray(gradient() > 127)
    assert two.mode == "1"
    assert np.array_equal(np.asarray(save(tmp_path, two))[..., 0], 255 * (gradient() > 127))
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (60, 40), (0, 255, 255, 0)).save(path, quality=100)
    assert images.open_image(path).getpixel((30, 20)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_every_orientation_in_every_format(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = Image.new("RGB", (64, 32), "black")
    upright.paste("red", (0, 0, 16, 16))
    upright.paste("blue", (48, 0, 64, 16))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the inverse Image.Transpose, by EXIF orientation
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    stored.save(path, exif=exif, quality=95)
    opened = images.open_image(path)
    assert opened.size == (64, 32)
    corners = [np.argmax(opened.getpixel(place)) for place in ((6, 6), (58, 6))]
    assert corners == [0, 2]
    assert max(opened.getpixel((6, 26))) < 40


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_large_images_are_scaled_down_and_upright(tmp_path: Path, suffix: str) -> None:
    waves = (127.5 + 100 * np.sin(np.arange(12000) / 300)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"large.{suffix}"
    Image.fromarray(np.broadcast_to(waves, (3000, 12000))).save(path, exif=exif, compress_level=1)
    opened = images.open_image(path)
    assert opened.size == (1500, 6000)
    expected = waves.reshape(-1, 2).mean(axis=1)
    assert np.abs(np.asarray(opened)[:, 700, 0] - expected).max() <= 2


def test_row_groups_leave_no_seams(tmp_path: Path) -> None:
    dim = Image.fromarray(np.linspace(0, 40000, 9000 * 1000).reshape(9000, 1000).astype(np.uint16))
    grey = np.asarray(save(tmp_path, dim, compress_level=1))[..., 0].astype(float)
    assert np.abs(grey[:, 500] - np.asarray(dim)[:, 500] / 257).max() <= 1


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    assert save(tmp_path, Image.new("RGB", (60, 40)), exif=exif).size == (40, 60)


def test_broken_files_raise_an_error_of_one_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)).save(whole)
    broken = {
        "cut.png": whole.read_bytes()[:5000],
        "text.png": b"this is not an image",
        "empty.png": b"",
        "bomb.png": _bomb(),
    }
    for name, content in broken.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=name) as error:
            images.open_image(path)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="does not exist"):
        images.open_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        images.open_image(tmp_path)


@pytest.mark.parametrize("limit", [1000, None])
def test_concurrent_reads_preserve_the_limit_of_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # 1000: fewer than the images have
    path, filters = tmp_path / "guide.png", list(warnings.filters)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)).save(path)
    start = threading.Barrier(8)

    def read(_: int) -> set[tuple[int, int]]:
        start.wait()
        return {images.open_image(path).size for _ in range(30)}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [{(300, 300)}] * 8
    assert limit == Image.MAX_IMAGE_PIXELS
    assert warnings.filters == filters


def test_dark_drawings_get_a_white_background(tmp_path: Path) -> None:
    drawing = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    drawing.paste((0, 0, 0, 255), (10, 10, 50, 12))
    opened = save(tmp_path, drawing)
    assert opened.getpixel((5, 5)) == (255, 255, 255)
    assert opened.getpixel((20, 11)) == (0, 0, 0)


def test_other_types_are_input_errors() -> None:
    assert images.to_rgb(np.zeros((4, 6))).size == (6, 4)
    with pytest.raises(InputError, match="is a path, not an image"):
        images.to_rgb("guide.png")


def _bomb() -> bytes:
    """Return the few bytes of a PNG of 30000x30000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_tensors_and_images_convert_both_ways() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    tensor = images.to_tensor(image)
    assert tensor.shape == (1, 3, 5, 7)
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert np.array_equal(np.asarray(images.to_pil(tensor * 2 - 1)), np.asarray(image))
    assert images.to_pil(torch.full((1, 3, 2, 2), 3.0)).getpixel((0, 0)) == (255, 255, 255)


def test_padding_repeats_the_border() -> None:
    tensor = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = images.pad_to(tensor, 4, 5)
    assert torch.equal(padded[..., :2, :3], tensor)
    assert padded[0, 0, 3, 4] == tensor[0, 0, 1, 2]
