"""A studio and a served page, of the tiny checkpoint."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synccontrol.spec.schema import flags
from synccontrol.studio.queue import Limits
from synccontrol.studio.session import Session
from synccontrol.studio.studio import Studio

ROOT = Path(__file__).parents[2]
MACHINE: dict[str, Any] = {"device": "cpu", "dtype": "auto", "offload": "none", "offline": True}
LIMITS = Limits(upload=1, pixels=2, canvas=1, steps=30, queue=6, each=2, visitors=8, history=3)


def url(image: Image.Image, kind: str = "PNG") -> str:
    """Returns a picture as a data URL."""
    file = io.BytesIO()
    image.save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def free_port() -> int:
    """Returns a port at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session("key", tmp_path, LIMITS)


@pytest.fixture(scope="session")
def studio() -> Studio:
    return Studio(MACHINE, LIMITS)


@pytest.fixture(scope="session")
def values(checkpoint: Path) -> Callable[..., dict[str, Any]]:
    """Returns what the fields of a page hold that has just been opened, with changes."""

    def changed(**changes: Any) -> dict[str, Any]:
        own = {
            "model": str(checkpoint),
            "preset": "default",
            "prompt": "a hill",
            "negative_prompt": "",
            "control0": "none",
            "detector0": "default",
            "control1": "none",
            "detector1": "default",
            "width": 128,
            "height": 64,
            "shape": "flat",
            "fit": "exact",
            "seed": 0,
            "count": 1,
            "steps": 2,
        }
        return {**own, **changes}

    return changed


@contextmanager
def serving(*flags: str, ending: signal.Signals = signal.SIGINT, **environment: str) -> Iterator[str]:
    """Returns the address of a page that a process of its own serves, as users start it, until it gets a signal."""
    command = [sys.executable, "-m", "synccontrol.studio", "--offline", "--port", str(free_port()), *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **environment}
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("The page is at http://"), line
            yield line.split()[4]
        finally:
            process.send_signal(ending)
            assert process.wait(20) == 130


@pytest.fixture(scope="session")
def page(checkpoint: Path) -> Iterator[str]:
    """Returns the address of a page with the tiny checkpoint."""
    limits = [word for flag in flags(LIMITS).values() for word in (f"--{flag.name}", str(getattr(LIMITS, flag.field)))]
    with serving("--model", str(checkpoint), "--device", "cpu", *limits) as address:
        yield address
