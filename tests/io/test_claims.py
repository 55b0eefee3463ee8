"""Claims: one run makes an output, the dead are succeeded, the living are not."""

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
from synccontrol.io import claims as locks
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


def test_the_claim_of_a_living_process_holds_and_that_of_a_dead_one_is_taken_over(tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    with start(TAKE, str(output)) as other, Claims() as own:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert not own.take(output)
        claims.sweep(tmp_path, [output])
        assert names(tmp_path) == [claims.claim_path(output).name]
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert own.take(output)
        assert names(tmp_path) == [claims.claim_path(output).name]
        own.release(output)
        assert names(tmp_path) == []
        assert own.take(tmp_path / "deep" / "b.png")
    assert not list((tmp_path / "deep").iterdir())


def test_another_machine_s_claim_holds_while_it_shows_signs_of_life(tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    path = claims.claim_path(output)
    path.write_text("0123abcd")
    with Claims() as own:
        assert not own.take(output)
        age(path, locks.STALE_SECONDS / 2)
        claims.sweep(tmp_path, [output])
        assert not own.take(output)
        age(path, locks.STALE_SECONDS + 1)
        assert own.take(output)
        assert path.read_text() == locks.machine_id()
        assert not Claims().take(output)  # nobody takes it from here


def test_claims_show_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.01)
    with Claims() as own:
        own.take(tmp_path / "a.png")
        path = claims.claim_path(tmp_path / "a.png")
        age(path)
        for _ in range(500):
            if time.time() - path.stat().st_mtime < 5:
                break
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 5


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with Claims() as own:
        assert own.take(tmp_path / "a.png")
        assert not Claims().take(tmp_path / "a.png")
        assert names(tmp_path) == [claims.claim_path(tmp_path / "a.png").name]


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc"), Path("/proc/deep")):  # in /proc all that is new "does not exist"
        with Claims() as own, pytest.raises(OutputError, match="cannot be written"):
            own.take(folder / "a.png")


RACE = """
import sys, time
from pathlib import Path
from synccontrol.io.claims import Claims
folder = Path(sys.argv[1])
with Claims() as own:
    for round in range(3):
        for number in range(150):
            output = folder / f"{number}.png"
            if not output.exists() and own.take(output):
                if not output.exists():
                    with output.open("a") as file: file.write("x")
                    print(number)
                own.release(output)
"""


def test_four_processes_make_each_output_once(tmp_path: Path) -> None:
    runs = [start(RACE, str(tmp_path)) for _ in range(4)]
    made = Counter(line for run in runs for line in run.communicate()[0].split())
    assert [run.returncode for run in runs] == [0] * 4
    assert made == Counter(map(str, range(150)))
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


def test_killed_between_any_two_calls_a_run_leaves_nothing_that_the_next_one_does_not_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "YOUNG_SECONDS", 0.0)
    for step in range(100):
        folder = tmp_path / str(step)
        folder.mkdir()
        with start(DIE, str(folder), str(step)) as killed:
            killed.communicate()
        output = folder / "deep" / "a.png"
        whole = output.exists()
        assert not whole or output.read_bytes() == b"whole"
        with Claims() as own:
            assert own.take(output)
            if not whole:
                atomic_write.publish(output, lambda file: file.write(b"whole"))
            own.release(output)
        claims.sweep(output.parent, [output])
        atomic_write.sweep(output.parent)
        assert names(output.parent) == ["a.png"], step
        assert output.read_bytes() == b"whole"
        if killed.returncode == 0:
            break
    assert step > 10
