"""Claims: one run generates an output, and claims of dead runs can be taken over."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from synccontrol.errors import OutputError
from synccontrol.io import atomic_write, claims
from synccontrol.io.claims import Claims

ROOT = Path(__file__).parents[2]
TAKE = """
import sys
from pathlib import Path
from synccontrol.io.claims import Claims
with Claims() as own:
    print(own.take(Path(sys.argv[1])), flush=True)
    sys.stdin.read()
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def age(path: Path, seconds: float = 10.0) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_claims_of_running_processes_hold_and_those_of_dead_ones_are_taken_over(tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    with start(TAKE, str(output)) as process, Claims() as claimed:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        assert not claimed.take(output)
        claims.sweep(tmp_path, [output])
        assert names(tmp_path) == [claims.claim_path(output).name]
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert claimed.take(output)
        assert names(tmp_path) == [claims.claim_path(output).name]
        claimed.release(output)
        assert names(tmp_path) == []
        assert claimed.take(tmp_path / "deep" / "b.png")
    assert not list((tmp_path / "deep").iterdir())


def test_a_claim_of_another_machine_holds_until_it_misses_heartbeats(tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    path = claims.claim_path(output)
    path.write_text("0123abcd")
    with Claims() as claimed:
        assert not claimed.take(output)
        age(path, claims.STALE_SECONDS / 2)
        claims.sweep(tmp_path, [output])
        assert not claimed.take(output)
        age(path, claims.STALE_SECONDS + 1)
        assert claimed.take(output)
        assert path.read_text() == claims.machine_id()
        assert not Claims().take(output)  # this process has it now


def test_claims_are_touched_at_every_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    with Claims() as claimed:
        claimed.take(tmp_path / "a.png")
        path = claims.claim_path(tmp_path / "a.png")
        age(path)
        for _ in range(500):
            if time.time() - path.stat().st_mtime < 5:
                break
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 5


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with Claims() as claimed:
        assert claimed.take(tmp_path / "a.png")
        assert not Claims().take(tmp_path / "a.png")
        assert names(tmp_path) == [claims.claim_path(tmp_path / "a.png").name]


def test_an_unwritable_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc"), Path("/proc/deep")):  # in /proc new files cannot be created
        with Claims() as claimed, pytest.raises(OutputError, match="cannot be written"):
            claimed.take(folder / "a.png")


RACE = """
import sys, time
from pathlib import Path
from synccontrol.io.claims import Claims
folder = Path(sys.argv[1])
with Claims() as own:
    for attempt in range(3):
        for number in range(150):
            output = folder / f"{number}.png"
            if not output.exists() and own.take(output):
                if not output.exists():
                    with output.open("a") as file: file.write("x")
                    print(number)
                own.release(output)
"""


def test_four_processes_generate_each_output_once(tmp_path: Path) -> None:
    processes = [start(RACE, str(tmp_path)) for _ in range(4)]
    generated = Counter(line for process in processes for line in process.communicate()[0].split())
    assert [process.returncode for process in processes] == [0] * 4
    assert generated == Counter(map(str, range(150)))
    assert all((tmp_path / f"{number}.png").read_text() == "x" for number in range(150))
    assert len(names(tmp_path)) == 150


DIE = """
import os, signal, sys
from pathlib import Path
from synccontrol.io import atomic_write, claims
left = int(sys.argv[2])
def counted(call):
    def wrapped(*arguments, **options):
        global left
        left -= 1
        if left < 0: os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return wrapped
for module, name in ((os, "link"), (os, "unlink"), (os, "open"), (os, "fsync"), (os, "mkdir"), (os, "stat"),
                     (claims.fcntl, "flock")):
    setattr(module, name, counted(getattr(module, name)))
Path.open = counted(Path.open)
output = Path(sys.argv[1]) / "deep" / "a.png"
with claims.Claims() as own:
    if not output.exists() and own.take(output):
        atomic_write.publish(output, counted(lambda file: file.write(b"whole")))
        own.release(output)
"""


def test_the_next_run_cleans_up_after_a_run_killed_between_any_two_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "YOUNG_SECONDS", 0.0)
    for step in range(100):
        folder = tmp_path / str(step)
        folder.mkdir()
        with start(DIE, str(folder), str(step)) as killed:
            killed.communicate()
        output = folder / "deep" / "a.png"
        is_complete = output.exists()
        assert not is_complete or output.read_bytes() == b"whole"
        with Claims() as claimed:
            assert claimed.take(output)
            if not is_complete:
                atomic_write.publish(output, lambda file: file.write(b"whole"))
            claimed.release(output)
        claims.sweep(output.parent, [output])
        atomic_write.sweep(output.parent)
        assert names(output.parent) == ["a.png"], step
        assert output.read_bytes() == b"whole"
        if killed.returncode == 0:
            break
    assert step > 10
