"""What is handed over: pictures as they are, and nothing that leads anywhere, is too large, or is no picture."""

import base64
import io
import re
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from synccontrol.errors import InputError
from synccontrol.studio import session
from synccontrol.studio.session import data_url_bytes, save_upload
from tests.studio.conftest import LIMITS, url

PICTURE = Image.new("RGB", (32, 16), "red")


def bomb(side: int = 30_000) -> bytes:
    """Returns a PNG of a few kB that would be decoded to gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1_000_000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_written_as_it_is(kind: str, tmp_path: Path) -> None:
    data = data_url_bytes(url(PICTURE, kind), LIMITS)
    path = save_upload(data, "My picture.of.Rome.PNG", tmp_path, LIMITS)
    assert path.read_bytes() == data
    assert path.name == f"My-picture-of-Rome{session.FORMATS[kind]}"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\..\\boot.ini", "a\0b", "", None, "....", "é" * 300, "con:aux|x"]
)
def test_names_lead_nowhere(name: object, tmp_path: Path) -> None:
    path = save_upload(data_url_bytes(url(PICTURE), LIMITS), name, tmp_path, LIMITS)
    assert path.parent == tmp_path and re.fullmatch(r"[\w-]{1,60}\.png", path.name, re.ASCII)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "given", ["/etc/passwd", "http://127.0.0.1/x.png", "file:///etc/passwd", "data:text,x", None, 3, {}]
)
def test_paths_and_addresses_are_not_opened(given: object) -> None:
    with pytest.raises(InputError, match="no file was uploaded"):
        data_url_bytes(given, LIMITS)


def test_too_many_bytes_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(InputError, match="2 MB, and 1 MB are the most"):
        data_url_bytes("data:image/png;base64," + "!" * 2_700_000, LIMITS)
    with pytest.raises(InputError, match="arrived damaged"):
        data_url_bytes("data:image/png;base64,!!!!", LIMITS)


def test_the_largest_file_is_taken_and_one_byte_more_is_not() -> None:
    def encoded(count: int) -> str:
        return "data:image/png;base64," + base64.b64encode(bytes(count)).decode()

    assert LIMITS.upload == 1
    assert len(data_url_bytes(encoded(1_000_000), LIMITS)) == 1_000_000
    with pytest.raises(InputError, match="1 MB are the most"):
        data_url_bytes(encoded(1_000_001), LIMITS)


@pytest.mark.parametrize("side", [30_000, 2_000_000_000])
def test_a_bomb_is_refused_by_its_header(side: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="megapixels"):
        save_upload(bomb(side), "bomb.png", tmp_path, LIMITS)
    assert not list(tmp_path.iterdir())


def test_a_picture_of_too_many_pixels_says_how_many_it_has(tmp_path: Path) -> None:
    large = data_url_bytes(url(Image.new("RGB", (2000, 1500))), LIMITS)
    with pytest.raises(InputError, match="2000x1500 pixels, and 2 megapixels are the most"):
        save_upload(large, "large.png", tmp_path, LIMITS)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_gives_its_line(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not an image that can be read|damaged or cut short"):
        save_upload(data, "x.png", tmp_path, LIMITS)


def test_openpose_json_keeps_its_kind(tmp_path: Path) -> None:
    path = save_upload(b' {"people": []}', "people.png", tmp_path, LIMITS)
    assert path.name == "people.json"


def test_a_data_url_holds_its_bytes() -> None:
    file = io.BytesIO(b"\0\1\2")
    encoded = base64.b64encode(file.getvalue()).decode()
    assert data_url_bytes(f"data:;base64,{encoded}", LIMITS) == b"\0\1\2"
