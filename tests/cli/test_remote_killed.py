"""Killed while a picture is on its way into an object store: there is no part of it, and the next run puts the whole.

S3 is played by a server of its own process, behind a door that stops halfway through an object.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from tests.cli.pictures import draw

ROOT = Path(__file__).parents[2]
SECONDS = 600.0  # for whatever is waited for
PLAYED = [sys.executable, "-m", "moto.server", "--port"]
PARTS = """
import random, s3fs
from synccontrol.io.object_store import Store
s3fs.S3FileSystem._pipe_file.__defaults__ = (5 * 2**20, None, "overwrite")  # bytes in a part, for 50 MiB
Store("s3://bucket/out").put(random.Random(0).randbytes(11 * 2**20), "a.png")
"""

pytestmark = pytest.mark.slow


class Door(ThreadingHTTPServer):
    """Passes requests on to a server. Of one whose address contains `held`, half; the rest never comes."""

    def __init__(self, server: int) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.server, self.held = server, ""
        self.half, self.gone = threading.Event(), threading.Event()  # half has come; who sent it is dead
        self.refused: int | None = None  # the server's answer to the half


class Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Door

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        door = self.server
        stops = self.command == "PUT" and door.held and door.held in self.path
        behind = http.client.HTTPConnection("127.0.0.1", door.server, timeout=SECONDS)
        behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":
                behind.putheader(name, value)
        behind.endheaders(body[: len(body) // 2] if stops else body)
        if stops:
            door.half.set()
            assert door.gone.wait(SECONDS)
            behind.sock.shutdown(socket.SHUT_WR)
        answer = behind.getresponse()
        content = answer.read()
        if stops:
            door.refused, self.close_connection = answer.status, True
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.headers.get("Content-Length") or str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def waited(true: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """Returns the door of a store that holds an empty bucket; programs find the store behind it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    played = subprocess.Popen([*PLAYED, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        waited(lambda: listens(port))
        with Door(port) as door:
            threading.Thread(target=door.serve_forever, daemon=True).start()
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.setenv(name, "test")
            monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{door.server_port}")
            store(door).mkdir("bucket")
            yield door
            door.shutdown()
    finally:
        played.kill()
        played.wait()


def store(door: Door) -> fsspec.AbstractFileSystem:
    """Returns the store without its door."""
    return fsspec.filesystem(
        "s3", endpoint_url=f"http://127.0.0.1:{door.server}", use_listings_cache=False, skip_instance_cache=True
    )


def objects(door: Door, folder: str) -> dict[str, bytes]:
    """Returns the pictures of a folder in the store."""
    there = store(door)
    names = [name for name in there.find(f"bucket/{folder}") if name.endswith(".png")]
    return {name.removeprefix(f"bucket/{folder}/"): there.cat_file(name) for name in names}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def finished(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], env=environment(), check=True, timeout=SECONDS)


def killed_while_it_puts(door: Door, held: str, arguments: list[str]) -> None:
    """Kills a program once half of what is held has come."""
    door.held = held
    program = subprocess.Popen([sys.executable, *arguments], env=environment())
    try:
        assert door.half.wait(SECONDS)
        assert program.poll() is None
    finally:
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    door.gone.set()
    waited(lambda: door.refused is not None)
    assert door.refused is not None and door.refused >= 400
    door.held = ""


def test_of_a_picture_there_is_nothing_or_all(door: Door, checkpoint: Path, tmp_path: Path) -> None:
    there = store(door)
    for seed, name in enumerate(("a.png", "b.png")):
        there.pipe_file(f"bucket/in/{name}", draw(tmp_path / name, width=96, seed=seed).read_bytes())
    model = ["--model", str(checkpoint), "--control", "canny", "--controlnet", str(checkpoint / "controlnet-canny")]
    how = ["--steps", "1", "--sync-weight", "0", "--save-control-map", "--device", "cpu", "--quiet"]
    flags = ["-m", "synccontrol", *model, *how, "--prompt", "x", "--guide", "s3://bucket/in", "--output"]
    finished([*flags, "s3://bucket/whole"])
    whole = objects(door, "whole")
    assert sorted(whole) == ["a.canny.png", "a.png", "b.canny.png", "b.png"]
    killed_while_it_puts(door, "/out/b.png", [*flags, "s3://bucket/out"])
    left = objects(door, "out")
    assert sorted(left) == ["a.canny.png", "a.png", "b.canny.png"]
    assert left == {name: whole[name] for name in left}
    finished([*flags, "s3://bucket/out"])
    assert objects(door, "out") == whole


def test_of_an_object_that_goes_in_parts_too(door: Door) -> None:
    killed_while_it_puts(door, "partNumber=2", ["-c", PARTS])
    assert objects(door, "out") == {}
    for _ in range(2):  # the very same is no error
        finished(["-c", PARTS])
    assert objects(door, "out") == {"a.png": random.Random(0).randbytes(11 * 2**20)}
