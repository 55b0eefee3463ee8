"""Guides of every kind become upright 8-bit RGB, or one clear error."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synccontrol import images
from synccontrol.errors import InputError


def gradient() -> np.ndarray:
    return np.linspace(0, 255, 40 * 60).reshape(40, 60)


def save(tmp_path: Path, image: Image.Image, **options: object) -> Image.Image:
    path = tmp_path / "guide.png"
    image.save(path, **options)
    return images.open_image(path)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    wide = Image.fromarray((gradient() / 255 * 65535).round().astype(np.uint16))
    found = np.asarray(save(tmp_path, wide))[..., 0].astype(float)
    assert np.abs(found - gradient()).max() <= 1


def test_palettes_keep_their_colours(tmp_path: Path) -> None:
    colours = Image.fromarray(np.random.default_rng(0).choice([0, 128, 255], (40, 60, 3)).astype(np.uint8))
    assert np.array_equal(np.asarray(save(tmp_path, colours.quantize(27))), np.asarray(colours))


def test_transparent_parts_are_black(tmp_path: Path) -> None:
    half = Image.new("RGBA", (60, 40), (200, 100, 50, 255))
    half.paste((200, 100, 50, 0), (0, 0, 30, 40))
    found = save(tmp_path, half)
    assert found.getpixel((10, 10)) == (0, 0, 0)
    assert found.getpixel((50, 10)) == (200, 100, 50)


def test_exif_turns_the_picture_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    assert save(tmp_path, Image.new("RGB", (60, 40)), exif=exif).size == (40, 60)


def test_broken_files_get_one_clear_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)).save(whole)
    broken = {
        "cut.png": whole.read_bytes()[:5000],
        "text.png": b"this is no picture",
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


def _bomb() -> bytes:
    """Returns a PNG of 30000x30000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_tensors_and_pictures_convert_back_and_forth() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    tensor = images.to_tensor(picture)
    assert tensor.shape == (1, 3, 5, 7)
    assert tensor.min() >= 0 and tensor.max() <= 1
    assert np.array_equal(np.asarray(images.to_pil(tensor * 2 - 1)), np.asarray(picture))
    assert images.to_pil(torch.full((1, 3, 2, 2), 3.0)).getpixel((0, 0)) == (255, 255, 255)


def test_fit_resizes_within_two_percent_and_refuses_beyond() -> None:
    guide = Image.new("RGB", (600, 100))
    assert images.fit(guide, 256, 1530, "guide").size == (1530, 256)
    with pytest.raises(InputError, match="use width 1536 at height 256"):
        images.fit(guide, 256, 1600, "guide")


def test_padding_repeats_the_border() -> None:
    picture = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = images.pad_to(picture, 4, 5)
    assert torch.equal(padded[..., :2, :3], picture)
    assert padded[0, 0, 3, 4] == picture[0, 0, 1, 2]
