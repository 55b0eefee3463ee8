"""The served page: its doors, what is refused, its interface for programs, and that nobody sees another's files."""

from __future__ import annotations

import base64
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from synccontrol.studio.server import ASSETS
from tests.studio.conftest import LIMITS, serving, url
from tests.studio.test_uploads import bomb

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
GUIDE = Image.linear_gradient("L").resize((128, 64)).convert("RGB")
SMALL = {"width": 128, "height": 64, "steps": 2}
Call = Callable[..., Any]


@pytest.fixture(scope="session")
def call(page: str) -> Call:
    """Returns a function that calls the interface for programs as curl would, and returns the result or the error."""

    def picture(*arguments: Any) -> Any:
        with httpx.Client(base_url=page, timeout=60) as client:
            started = client.post("gradio_api/call/picture", json={"data": list(arguments)})
            if started.status_code != 200:
                return started
            with client.stream("GET", f"gradio_api/call/picture/{started.json()['event_id']}") as answer:
                event, data = answer.read().decode().split("event: ")[-1].split("\ndata: ", 1)
        found = json.loads(data)
        return found[0] if event == "complete" else found

    return picture


def test_a_program_draws_a_picture(call: Call) -> None:
    found = call("a hill", url(GUIDE), "canny", "default", {**SMALL, "seed": 3})
    with Image.open(io.BytesIO(base64.b64decode(found["picture"].partition(",")[2]))) as image:
        assert image.size == (128, 64)
        assert json.loads(image.info["synccontrol"]) == found["settings"]
    assert (found["settings"]["seed"], found["settings"]["guide"]) == (3, "guide.png")
    assert "--guide guide.png" in found["command"] and "--seed 3" in found["command"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x", "/etc/passwd", "canny", "default", SMALL), "no file was uploaded"),
        (("x", "http://127.0.0.1:1/x.png", "canny", "default", SMALL), "no file was uploaded"),
        (("x", "data:image/png;base64," + base64.b64encode(bomb()).decode(), "canny", "default", SMALL), "megapixels"),
        (("x", "data:image/png;base64,aGVsbG8=", "canny", "default", SMALL), "not an image that can be read"),
        (("x", "", "", "default", {"guide": "/etc/passwd"}), "settings guide cannot be set here"),
        (("x", "", "", "default", {"lora": ["/etc/passwd"]}), "settings lora cannot be set here"),
        (("x", "", "", "default", {**SMALL, "anchor": "/etc/passwd"}), "anchor is '/etc/passwd'"),
        (("x", "", "", "default", {**SMALL, "model": "/etc"}), "model '/etc' is not on offer"),
        (("x", "", "depth", "default", SMALL), "depth has no guide to follow"),
        (("x", "", "", "default", {**SMALL, "width": 99999}), "megapixels that this page generates"),
        (("x", "", "", "default", {**SMALL, "steps": 1000}), "1000 steps are more than"),
        (("x", "", "", "slow", SMALL), "preset 'slow' is not on offer"),
    ],
)
def test_what_is_wrong_gives_its_line(arguments: tuple[Any, ...], said: str, call: Call) -> None:
    found = call(*arguments)
    assert said in found["error"] and "\n" not in found["error"] and "Traceback" not in found["error"]


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=../../../etc/passwd",
        "gradio_api/file=http://127.0.0.1:1/",
        "file=/etc/passwd",
        "gradio_api/proxy=http://127.0.0.1:1/",
        "gradio_api/upload_progress?upload_id=x",
        "static/../../../../../../../etc/passwd",
        "static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "assets/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "synccontrol/assets/../guard.py",
        "synccontrol/assets/..%2fguard.py",
        "synccontrol/assets/%2fetc%2fpasswd",
        "synccontrol/pictures/../../etc/passwd",
        "synccontrol/pictures/",
        "synccontrol/pictures/x",
        "custom_component/x/y",
        "monitoring",
        "docs",
        "openapi.json",
    ],
)
def test_closed_doors(path: str, page: str) -> None:
    host, port = re.fullmatch(r"http://([\d.]+):(\d+)/?", page).groups()  # type: ignore[union-attr]
    head = f"http://{host}:{port}/{path}"
    done = subprocess.run(["curl", "-s", "--path-as-is", "-w", "\n%{http_code}", head], capture_output=True, check=True)
    body, _, status = done.stdout.decode().rpartition("\n")
    assert status == "404", head
    assert "root:" not in body and "import" not in body


def test_uploads_and_large_messages_are_refused(page: str, call: Call) -> None:
    files = {"files": ("x.png", b"x", "image/png")}
    assert httpx.post(f"{page}gradio_api/upload", files=files).status_code == 404
    large = "data:image/png;base64," + "A" * (2 * LIMITS.upload * 1_000_000)
    answer = call("x", large, "canny", "default", SMALL)
    assert answer.status_code == 413 and "MB that are taken" in answer.text

    def endless() -> Any:
        for _ in range(40):
            yield b"A" * 100_000

    try:
        status = httpx.post(f"{page}gradio_api/call/picture", content=endless()).status_code
    except httpx.WriteError:  # the server has hung up before the end
        status = 413
    assert status in (400, 413)
    assert call("a hill", "", "", "default", SMALL)["picture"]  # and it goes on


def test_a_hundred_pictures_at_once_are_bounded(call: Call) -> None:
    with ThreadPoolExecutor(25) as pool:
        found = list(pool.map(lambda seed: call("x", "", "", "fast", {**SMALL, "seed": seed}), range(100)))
    drawn = [one for one in found if "picture" in one]
    refused = [one["error"] for one in found if "error" in one]
    assert len(drawn) + len(refused) == 100 and drawn and refused
    assert all("wait" in line or "try again in a while" in line for line in refused), refused
    assert call("x", "", "", "fast", SMALL)["picture"]


def test_nothing_is_asked_of_other_servers(page: str) -> None:
    answer = httpx.get(page)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    again = httpx.get(page, cookies={"synccontrol": "mine"})
    assert "set-cookie" not in again.headers


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_nothing_of_visitors_stays_when_it_ends(checkpoint: Path, tmp_path: Path, ending: signal.Signals) -> None:
    with serving("--model", str(checkpoint), "--device", "cpu", ending=ending, TMPDIR=str(tmp_path)):
        assert list(tmp_path.glob("synccontrol-*"))
    assert not list(tmp_path.glob("synccontrol-*"))


def test_assets_have_their_kind(page: str) -> None:
    for name, kind in (("core.js", "javascript"), ("page.css", "text/css"), ("valley.webp", "image/webp")):
        answer = httpx.get(f"{page}synccontrol/assets/{name}")
        assert answer.status_code == 200 and kind in answer.headers["content-type"]
    for name in ("pannellum", "panzoom"):
        assert (ASSETS / f"{name}.LICENSE").read_text().startswith("Copyright")


@pytest.mark.parametrize("language", ["python", "bash"])
def test_the_documented_calls_work(language: str, page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")
    codes = [code for code in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if "7860" in code]
    assert len(codes) == 1
    code = codes[0].replace("http://127.0.0.1:7860/", page).replace('"depth"', '"canny"')
    code = code.replace('"width": 1536', '"width": 384, "height": 64, "steps": 2')
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    program = {"python": [sys.executable, "-c"], "bash": ["bash", "-euo", "pipefail", "-c"]}[language]
    done = subprocess.run([*program, code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "valley.png") as image:
        assert image.size == (384, 64)
        assert json.loads(image.info["synccontrol"])["seed"] == 3
