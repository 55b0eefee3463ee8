"""Which pictures a run makes, and under which names."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from synccontrol.errors import ConfigError, InputError
from synccontrol.jobs.plan import Job, plan

WANTED = Job(guide=None, prompt="common", negative_prompt="", seed=0, output=Path("out"))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 64)).save(name)


def manifest(*rows: object, name: str = "rows.jsonl") -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return Path(name)


def planned(guide: str | Path | None, output: str = "out", *maps: str) -> dict[str, list[str]]:
    jobs = plan(dataclasses.replace(WANTED, guide=guide and Path(guide), output=Path(output)), maps)
    found: dict[str, list[str]] = {}
    for job in jobs:
        found.setdefault(str(job.guide or ""), []).append(os.path.relpath(job.output))
    return found


def test_outputs_never_collide() -> None:
    files("in/a.png", "in/a.jpg", "in/a.webp", "in/deep/a.png")
    assert planned("in") == {
        "in/a.jpg": ["out/a.jpg.png"],
        "in/a.png": ["out/a.png"],
        "in/a.webp": ["out/a.webp.png"],
        "in/deep/a.png": ["out/deep/a.png"],
    }


def test_a_guide_that_is_listed_again_gives_another_picture() -> None:
    files("a.png", "a-2.png")
    rows = manifest(*({"image": name, "seed": seed} for name, seed in (("a.png", 1), ("a.png", 2), ("a.png", 3))))
    assert planned(rows) == {"a.png": ["out/a.png", "out/a-2.png", "out/a-3.png"]}
    rows = manifest({"image": "a.png"}, {"image": "a.png"}, {"image": "a-2.png"})
    assert planned(rows) == {"a.png": ["out/a.png", "out/a-3.png"], "a-2.png": ["out/a-2.png"]}


def test_nothing_is_written_outside_of_the_output_folder() -> None:
    files("guides/a.png", "lists/b.png", "other/a.png")
    here = Path.cwd()
    rows = manifest(
        {"image": "../guides/a.png"},
        {"image": "b.png"},
        {"image": str(here / "other" / "a.png")},
        name="lists/rows.jsonl",
    )
    assert sorted(name for names in planned(rows).values() for name in names) == [
        "out/a-2.png",
        "out/a.png",
        "out/b.png",
    ]
    for output in ("../a.png", "deep/../../a.png", "/tmp/a.png"):
        with pytest.raises(InputError, match="leads out of the folder"):
            plan(dataclasses.replace(WANTED, guide=manifest({"image": "b.png", "output": output})))


def test_a_row_names_what_it_wants() -> None:
    files("a.png", "map.png")
    row = {"prompt": "own", "negative_prompt": "no", "seed": 5, "width": 160, "height": 64, "output": "deep/x.png"}
    rows = manifest({"image": "a.png", **row}, {"control_map": "map.png"}, {"control_map": ["map.png", "a.png"]})
    own, ready, several = plan(dataclasses.replace(WANTED, guide=rows))
    assert (own.prompt, own.negative_prompt, own.seed, own.width, own.height) == ("own", "no", 5, 160, 64)
    assert own.output == Path("out/deep/x.png")
    assert (ready.guide, ready.control_maps, ready.output) == (None, (Path("map.png"),), Path("out/map.png"))
    assert ready.prompt == "common"
    assert (several.control_maps, several.output) == ((Path("map.png"), Path("a.png")), Path("out/map-2.png"))
    with pytest.raises(InputError, match="names the output"):
        plan(dataclasses.replace(WANTED, guide=manifest(*[{"image": "a.png", "output": "x.png"}] * 2)))


def test_what_editors_do_to_manifests_does_no_harm() -> None:
    files("a.png")
    Path("rows.jsonl").write_bytes("\ufeff".encode() + '{"image": "a.png", "prompt": "one\u2028two"}\r\n\r\n'.encode())
    (job,) = plan(dataclasses.replace(WANTED, guide=Path("rows.jsonl")))
    assert job.prompt == "one\u2028two"


WRONG_ROWS = {
    "{": "line 1 is not JSON",
    "[]": 'line 1 needs "image"',
    '{"prompt": "x"}': 'line 1 needs "image"',
    '{"image": "a.png", "control_map": "b.png"}': 'line 1 needs "image"',
    '{"image": 5}': "image is 5; it must be the path of a guide",
    '{"image": "a.png", "seed": -1}': "whole number between 0 and",
    '{"image": "a.png", "seed": true}': "seed is True; it must be a whole number",
    '{"image": "a.png", "width": "wide"}': "width is 'wide'; it must be pixels",
    '{"image": "a.png", "size": 5}': "'size' is unknown; known: image",
    '{"image": "a.png", "output": "a.jpg"}': "name the output a.png",
    '{"control_map": []}': "it must be the path of a control map",
    " ": "is empty",
}


@pytest.mark.parametrize("line", WRONG_ROWS)
def test_a_wrong_row_is_one_line_that_says_what_a_row_holds(line: str) -> None:
    Path("rows.jsonl").write_text(line)
    with pytest.raises(InputError) as error:
        plan(dataclasses.replace(WANTED, guide=Path("rows.jsonl")))
    assert WRONG_ROWS[line] in str(error.value)
    assert "\n" not in str(error.value)


def test_hidden_files_and_own_outputs_are_no_guides() -> None:
    files("a.png", ".b.png", "._a.png", ".cache/c.png", "out/a.png", "out/deep/b.png")
    assert planned(".") == {"a.png": ["out/a.png"]}
    assert planned(".", "elsewhere").keys() == {"a.png", "out/a.png", "out/deep/b.png"}
    with pytest.raises(ConfigError, match="holds the guides"):
        planned(".", ".")


def test_a_folder_may_have_a_dot_in_its_name() -> None:
    files("in/a.png")
    Path("runs.v2").mkdir()
    assert planned("in", "runs.v2") == {"in/a.png": ["runs.v2/a.png"]}
    assert planned("in/a.png", "runs.v2") == {"in/a.png": ["runs.v2/a.png"]}
    assert planned("in", "runs.v3") == {"in/a.png": ["runs.v3/a.png"]}
    with pytest.raises(ConfigError, match="must be a folder, not all"):
        planned("in", "all.png")


def test_saved_maps_have_names_of_their_own() -> None:
    files("in/a.png", "in/a.canny.png")
    jobs = plan(dataclasses.replace(WANTED, guide=Path("in")), ["depth", "depth", "canny"])
    names = [path for job in jobs for path in (job.output, *job.map_outputs)]
    assert len(set(names)) == 8
    assert [path.name for path in jobs[1].map_outputs] == ["a.depth.png", "a.depth-2.png", "a.canny-2.png"]
