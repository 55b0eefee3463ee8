"""Which pictures a run makes, and under which names."""

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from synccontrol.batch import planner as planning
from synccontrol.batch.job import Job, Recipe
from synccontrol.batch.model_request import ModelRequest
from synccontrol.errors import ConfigError, InputError
from synccontrol.io.manifest import Row
from synccontrol.io.manifest import rows as rows_of
from synccontrol.spec.settings import SamplingConfig, SyncConfig, WindowConfig

RECIPE = Recipe(
    request=ModelRequest(model="test", controls=("depth",), controlnets=(), detectors=()),
    sampling=SamplingConfig().complete(),
    windows=WindowConfig().complete(),
    sync=SyncConfig().complete(),
)
WANTED = Job(guide=None, prompt="common", negative_prompt="", seed=0, output=Path("out"), recipe=RECIPE)


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


def plan(wanted: Job, seeds: Sequence[int] = (), controls: Sequence[str] = ()) -> list[Job]:
    """Returns the jobs, rows changing nothing but a job's own fields; with maps saved if there are controls."""
    recipe = dataclasses.replace(RECIPE, request=dataclasses.replace(RECIPE.request, controls=tuple(controls)))
    wanted = dataclasses.replace(wanted, recipe=recipe) if controls else wanted
    return planning.plan(wanted, lambda job, values: dataclasses.replace(job, **values), seeds, bool(controls))


def manifest_rows(path: Path) -> list[Row]:
    return list(rows_of(path))


def planned(guide: str | Path | None, output: str = "out", *maps: str) -> dict[str, list[str]]:
    jobs = plan(dataclasses.replace(WANTED, guide=guide and Path(guide), output=Path(output)), (), maps)
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
    jobs = plan(dataclasses.replace(WANTED, guide=Path("in")), (), ["depth", "depth", "canny"])
    names = [path for job in jobs for path in (job.output, *job.map_outputs)]
    assert len(set(names)) == 8
    assert [path.name for path in jobs[1].map_outputs] == ["a.depth.png", "a.depth-2.png", "a.canny-2.png"]


def test_moving_pictures_and_links_are_guides_but_no_folder_is_entered_in_itself() -> None:
    files("elsewhere/deep/c.png", "in/a.gif", "in/b.avif")
    Path("in/link").symlink_to(Path("elsewhere").resolve())
    Path("in/soft.png").symlink_to(Path("elsewhere/deep/c.png").resolve())
    Path("in/round").symlink_to(Path("in").resolve())
    Path("in/gone.png").symlink_to("nowhere.png")
    found = planned("in")
    assert found == {
        "in/a.gif": ["out/a.png"],
        "in/b.avif": ["out/b.png"],
        "in/gone.png": ["out/gone.png"],  # it fails alone when its turn comes
        "in/link/deep/c.png": ["out/link/deep/c.png"],
        "in/soft.png": ["out/soft.png"],
    }


def test_a_glob_is_a_folder_from_its_first_wildcard_on() -> None:
    files("in/a.png", "in/x/b.png", "in/x/c.jpg", "in/.x/d.png", "in/e[1].png")
    assert planned("in/*.png") == {"in/a.png": ["out/a.png"], "in/e[1].png": ["out/e[1].png"]}
    assert planned("in/**/*.png").keys() == {"in/a.png", "in/e[1].png", "in/x/b.png"}
    assert planned("in/*/c.*") == {"in/x/c.jpg": ["out/x/c.png"]}
    assert planned("in/e[1].png") == {"in/e[1].png": ["out/e[1].png"]}
    for pattern, message in (("in/*.bmp", "holds no images"), ("in/**x/a.png", "is no pattern")):
        with pytest.raises(InputError, match=message):
            planned(pattern)


def test_names_of_any_bytes() -> None:
    name = os.fsdecode(b"in/\xff\xfe.png")
    files("in/a.png")
    Path("in/a.png").rename(name)
    assert planned("in") == {name: [os.fsdecode(b"out/\xff\xfe.png")]}
    rows = Path("rows.jsonl")
    rows.write_text(json.dumps({"image": name}))
    assert planned(rows) == {name: [os.fsdecode(b"out/in/\xff\xfe.png")]}


def test_csv_says_the_same_as_json() -> None:
    files("a.png", "b.png", "map.png")
    text = (
        "\ufeffimage, prompt ,seed,width,control_map,loop,control_scale\r\n"
        'a.png,"one, ""two""\nthree",5,160,,true,0.5\r\n'
        "\r\n"
        'b.png,007,,,"[null, ""map.png""]",,"[1, 0.5]"\r\n'
        ",,,,map.png,,\r\n"
    )
    Path("rows.csv").write_text(text, encoding="utf-8", newline="")
    own, mixed, ready = manifest_rows(Path("rows.csv"))
    assert own.values == {"prompt": 'one, "two"\nthree', "seed": 5, "width": 160, "loop": True, "control_scale": 0.5}
    assert mixed.values == {"prompt": "007", "control_scale": [1, 0.5]}
    assert mixed.control_maps == (None, Path("map.png"))
    assert (ready.image, ready.control_maps) == (None, (Path("map.png"),))


WRONG_CSV = {
    "image,image\na.png,b.png": "names a column twice",
    "image\na.png,b.png": "line 2 has 2 cells for 1 columns",
    'image\n"a.png': "is not CSV",
    "image,seed\na.png,x": "line 2: seed is 'x'; it must be a whole number",
    "image,size\na.png,5": "'size' is unknown; known: image",
    "prompt\nx": 'line 2 needs "image"',
    "image": "is empty",
    "": "is empty",
}


@pytest.mark.parametrize("text", WRONG_CSV)
def test_wrong_csv_is_one_line(text: str) -> None:
    Path("rows.csv").write_text(text)
    with pytest.raises(InputError) as error:
        list(manifest_rows(Path("rows.csv")))
    assert WRONG_CSV[text] in str(error.value)
    assert "\n" not in str(error.value)


def test_seeds_are_variations_under_names_that_say_them() -> None:
    files("in/a.png", "in/b.png")
    jobs = plan(dataclasses.replace(WANTED, guide=Path("in")), seeds=[3, 7])
    assert [(job.output.name, job.seed) for job in jobs] == [
        ("a-seed3.png", 3),
        ("a-seed7.png", 7),
        ("b-seed3.png", 3),
        ("b-seed7.png", 7),
    ]
    rows = manifest({"image": "in/a.png", "seed": 5}, {"image": "in/b.png"})
    jobs = plan(dataclasses.replace(WANTED, guide=rows), seeds=[3, 7])
    assert [(job.output.name, job.seed) for job in jobs] == [("a.png", 5), ("b-seed3.png", 3), ("b-seed7.png", 7)]
    (one,) = plan(dataclasses.replace(WANTED, guide=Path("in/a.png")), seeds=[9])
    assert (one.output, one.seed) == (Path("out/a.png"), 9)
    text = plan(WANTED, seeds=[1, 2])
    assert [job.output.name for job in text] == ["montage-seed1.png", "montage-seed2.png"]


def test_folders_of_ready_made_maps() -> None:
    files("in/a.png", "in/deep/b.jpg", "depth/a.webp", "depth/deep/b.png", "pose/a.pose.png")
    recipe = dataclasses.replace(RECIPE, request=dataclasses.replace(RECIPE.request, controls=("depth", "pose")))
    wanted = dataclasses.replace(WANTED, recipe=recipe)
    ready = plan(dataclasses.replace(wanted, control_maps=(Path("depth"), Path("pose"))))
    assert [job.control_maps for job in ready] == [
        (Path("depth/a.webp"), Path("pose/a.pose.png")),
        (Path("depth/deep/b.png"), Path("pose/deep/b.png")),  # which is not there: that picture fails alone
    ]
    assert [job.output for job in ready] == [Path("out/a.png"), Path("out/deep/b.png")]
    mixed = plan(dataclasses.replace(wanted, guide=Path("in"), control_maps=(Path("depth"), None)))
    assert [(job.guide, job.control_maps) for job in mixed] == [
        (Path("in/a.png"), (Path("depth/a.webp"), None)),
        (Path("in/deep/b.jpg"), (Path("depth/deep/b.png"), None)),
    ]
    assert mixed[0].detected == (1,)


def test_a_hundred_thousand_rows_take_seconds() -> None:
    files("a.png")
    Path("rows.jsonl").write_text("\n".join(f'{{"image": "a.png", "seed": {seed}}}' for seed in range(10_000)))
    start = time.process_time()
    jobs = plan(dataclasses.replace(WANTED, guide=Path("rows.jsonl")))
    assert time.process_time() - start < 3  # 30 for all; grows with the number, not its square
    assert len({job.output for job in jobs}) == len(jobs) == 10_000
