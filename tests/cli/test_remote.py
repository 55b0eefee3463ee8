"""Guides and outputs in an object store: as in folders, by their URLs."""

import json
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from synccontrol.io import metadata
from synccontrol.io.object_store import HEAD_BYTES
from tests.cli.pictures import Run, draw

SIZE = ["--height", "64", "--width", "96", "--fit", "crop", "--prompt", "x"]
GUIDES, OUT = "memory://guides/in", "memory://pictures/out"


@pytest.fixture
def memory() -> MemoryFileSystem:
    """Returns the store in memory, with two guides, one of which is none."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pipe_file("/guides/in/deep/a.png", draw(Path("a.png")).read_bytes())
    system.pipe_file("/guides/in/b.png", b"no picture")
    system.pipe_file("/guides/in/notes.txt", b"text")
    return system


@pytest.fixture
def flags(canny: list[str]) -> list[str]:
    return [*canny, *SIZE, "--guide", GUIDES, "--output", OUT]


def pictures(memory: MemoryFileSystem) -> dict[str, bytes]:
    found = memory.find("/pictures")
    return {name: memory.cat_file(name) for name in found if not name.endswith(".jsonl")}


@pytest.fixture(autouse=True)
def here(run: Run, memory: MemoryFileSystem) -> None:
    """Is in the empty folder of a run, before guides are drawn."""


def test_a_store_holds_what_a_folder_would(
    run: Run, flags: list[str], memory: MemoryFileSystem, tmp_path: Path
) -> None:
    status, out, err = run(*flags, "--save-control-map")
    assert (status, out) == (1, f"{OUT}/deep/a.png\n"), err
    assert err.splitlines()[0].startswith(f"error: {GUIDES}/b.png ") and "/tmp" not in err
    assert set(pictures(memory)) == {"/pictures/out/deep/a.png", "/pictures/out/deep/a.canny.png"}
    (tmp_path / "x.png").write_bytes(pictures(memory)["/pictures/out/deep/a.png"])
    assert metadata.read_settings(tmp_path / "x.png")["guide"] == f"{GUIDES}/deep/a.png"
    (records,) = memory.glob("/pictures/out/results-*.jsonl")
    lines = [json.loads(line) for line in memory.cat_file(records).splitlines()]
    assert {line["output"]: line["status"] for line in lines} == {"deep/a.png": "made", "b.png": "failed"}
    assert {line["guide"] for line in lines} == {f"{GUIDES}/deep/a.png", f"{GUIDES}/b.png"}
    folder = run(*flags[:-2], "--output", "local", "--save-control-map")
    assert folder[0] == 1
    assert Path("local/deep/a.png").read_bytes() == pictures(memory)["/pictures/out/deep/a.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "local", "x.png"]


def test_what_is_there_is_kept_and_said(run: Run, flags: list[str], memory: MemoryFileSystem) -> None:
    assert run(*flags)[0] == 1
    before = pictures(memory)
    status, out, err = run(*flags)
    assert (status, out) == (1, "") and err.count("\n") == 2  # the guide that is none, and how many failed
    err = run(*flags, "--seed", "3")[2]
    assert f"generated with another seed ({OUT}/deep/a.png)" in err
    assert pictures(memory) == before
    assert run(*flags, "--seed", "3", "--overwrite")[1] == f"{OUT}/deep/a.png\n"
    assert pictures(memory).keys() == before.keys() and pictures(memory) != before
    assert len(before["/pictures/out/deep/a.png"]) < HEAD_BYTES


def test_what_another_run_has_put_meanwhile_stays(
    run: Run, flags: list[str], memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synccontrol.batch.worker import Worker

    real = Worker.save

    def save(self: Worker, task: object) -> object:
        memory.pipe_file("/pictures/out/deep/a.png", b"theirs")
        return real(self, task)  # type: ignore[arg-type]

    monkeypatch.setattr(Worker, "save", save)
    status, out, err = run(*flags)
    assert (status, out) == (1, "") and f"{OUT}/deep/a.png exists; name another --output" in err
    assert pictures(memory) == {"/pictures/out/deep/a.png": b"theirs"}


def test_one_guide_and_one_picture(run: Run, flags: list[str], memory: MemoryFileSystem) -> None:
    one = [*flags[:-4], "--guide", f"{GUIDES}/deep/a.png"]
    assert run(*one, "--output", "memory://pictures/x.png")[:2] == (0, "memory://pictures/x.png\n")
    assert run(*one, "--output", "memory://pictures/x.png")[2].startswith("error: memory://pictures/x.png exists")
    assert run(*one, "--output", OUT)[1] == f"{OUT}/a.png\n"
    assert run(*one, "--output", OUT, "--seed", "1")[1] == f"{OUT}/a-2.png\n"
    assert run(*one, "--output", f"file://{Path.cwd()}/here")[1] == f"{Path.cwd()}/here/a.png\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--guide", GUIDES, "--output", GUIDES, "--overwrite"], "holds the guides"),
        (["--guide", GUIDES, "--output", "memory://guides/in/x"], "lies in them"),
        (["--guide", "memory://guides/rows.jsonl"], "is a manifest in a store"),
        (["--guide", "memory://nothing/x"], "memory://nothing/x"),
        (["--guide", "nothing://x/y"], "nothing://x/y cannot be reached"),
        (["--guide", GUIDES, "--output", OUT, "--report"], "--report links files of this machine"),
        (["--guide", GUIDES, "--engine", "ray", "--address", "auto"], "mount the store"),
    ],
)
def test_what_stores_cannot_do_is_one_line(flags: list[str], message: str, run: Run, canny: list[str]) -> None:
    status, out, err = run(*canny, *SIZE, *flags)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert message in err
