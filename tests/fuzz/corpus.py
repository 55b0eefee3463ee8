"""Files as they come: good, odd, broken, hostile."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

SIDES = (160, 64)  # px, of what can be drawn


def _noise(mode: str = "RGB", size: tuple[int, int] = SIDES) -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,)}[mode]
    values = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, *channels), dtype=np.uint8)
    return Image.fromarray(values, mode).resize(size, Image.Resampling.NEAREST)


def _png(width: int, height: int, data: bytes) -> bytes:
    """Returns a PNG that says it is of a size, whatever its data are."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def write_few(folder: Path) -> None:
    """Writes a folder of few pictures: good, broken, hidden, and one below."""
    (folder / "deep").mkdir(parents=True)
    for name in ("good.png", ".hidden.png", "deep/good.png"):
        _noise().save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")


def write(folder: Path) -> list[str]:
    """Writes the corpus; returns the names of its files."""
    folder.mkdir(parents=True)
    good = _noise()
    good.save(folder / "good.png")
    for suffix in ("jpg", "webp", "bmp", "tif", "gif", "avif"):
        good.save(folder / f"good.{suffix}")
    for mode in ("L", "RGBA", "LA"):
        _noise(mode).save(folder / f"{mode}.png")
    _noise("CMYK").save(folder / "cmyk.jpg")
    good.convert("P").save(folder / "palette.png", transparency=0)
    good.convert("1").save(folder / "bits.png")
    Image.fromarray(np.linspace(0, 65535, 160 * 64).reshape(64, 160).astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.full((64, 160), np.nan, dtype=np.float32)).save(folder / "nan.tif")
    frames = [_noise("L"), Image.new("L", SIDES)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    for name, turn in (("turned", 6), ("absurd", 77)):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = turn
        good.save(folder / f"{name}.jpg", exif=exif)
    good.save(folder / "profile.png", icc_profile=b"no profile at all")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("RGB", (65535, 1)).save(folder / "long.png")
    Image.new("RGB", (9, 2000)).save(folder / "high.png")
    Image.new("RGB", (64, 64)).save(folder / "square.png")
    whole = (folder / "good.png").read_bytes()
    broken = {
        "empty.png": b"",
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": (folder / "good.jpg").read_bytes()[:300],
        "text.png": b"no picture",
        "page.jpg": b"<html></html>",
        "wrong.jpg": whole,
        "zeros.png": bytes(5000),
        "flipped.png": whole[:60] + bytes(byte ^ 0xFF for byte in whole[60:90]) + whole[90:],
        "bomb.png": _png(100_000, 100_000, bytes(1000)),
        "liar.png": _png(160, 64, b"short"),
        "nothing.png": _png(0, 64, b""),
        "pose.json": b'{"people": [], "canvas_width": 160, "canvas_height": 64}',
        "other.json": b'{"people": 5}',
        "cut.json": b'{"people": [',
        os.fsdecode(b"\xff\xfe.png"): whole,
        "ünïcode \u2028 #%?.png": whole,
        "two\nlines.png": whole,
        "two\nlines cut.png": whole[:100],
        ".hidden.png": whole,
        "-dash.png": whole,
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "again").symlink_to(".")
    os.mkfifo(folder / "pipe.png")
    return sorted(path.name for path in folder.iterdir())
