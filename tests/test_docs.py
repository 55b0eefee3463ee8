"""The documents are true: every flag, control, family and objective stands in them, and the README's commands run."""

import json
import re
import runpy
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import preprocess
from docs import flags as reference
from synccontrol import families
from synccontrol.cli import evaluate as evaluation
from synccontrol.cli import main, parser, terminal
from synccontrol.cli.terminal import COMMANDS
from synccontrol.models import listing, registry
from synccontrol.spec import settings
from synccontrol.spec.image_settings import renamed_flags

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))}
DOCUMENTS = "\n".join([README, *PAGES.values()])
MODELS, FAMILIES = PAGES[ROOT / "docs" / "models.md"], PAGES[ROOT / "docs" / "families.md"]
FEW_STEPS = ["--steps", "2", "--sync-steps", "1", "--quiet"]


def commands(start: str, text: str = README) -> list[str]:
    """Returns the lines of a document's shell blocks that begin with a word, comments cut off."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [shlex.join(shlex.split(line, comments=True)) for block in blocks for line in block.splitlines()]
    lines = [line.replace("python cli.py", "synccontrol") for line in lines]
    return [line for line in lines if line.startswith(start)]


def test_every_flag_stands_in_the_documents() -> None:
    parsers = [parser.build_parser(), *(command.load().build_parser() for command in COMMANDS.values())]
    actions = [action for one in parsers for action in one._actions]
    flags = {flag for action in actions for flag in action.option_strings if flag.startswith("--")}
    named = {flag for flag in flags if not flag.startswith("--no-") and flag != "--help"}
    assert {flag for flag in named if f"`{flag}`" not in DOCUMENTS} == set()
    named_there = set(re.findall(r"`(--[a-z-]+)`", "\n".join([README, PAGES[ROOT / "docs" / "flags.md"]])))
    assert named_there - flags == {f"--{earlier}" for earlier in renamed_flags()}  # which the reference lists


def test_the_reference_of_flags_is_that_of_the_schema() -> None:
    page = PAGES[ROOT / "docs" / "flags.md"]
    assert reference.written(page) == page, "run python -m docs.flags"


def test_every_name_stands_in_the_documents() -> None:
    controls = preprocess.names()
    names = {
        *controls,
        *(detector for control in controls for detector in preprocess.detectors(control)),
        *registry.PRESETS,
        *settings.SCHEDULERS,
        *settings.OBJECTIVES,
        *settings.WEIGHTS,
        *settings.GRADIENTS,
        *settings.STEP_SIZES,
        *settings.PROJECTIONS,
        *(module.__name__.rpartition(".")[2] for module in families._families().values()),
    }
    assert {name for name in names if f"`{name}`" not in DOCUMENTS} == set()


def test_forecasts_on_the_page_of_models_are_those_of_the_command() -> None:
    found = json.loads((ROOT / "benchmarks" / "preset_forecasts.json").read_text(encoding="utf-8"))
    for name, row in found.items():
        size, card = f"{row['peak_gb']:.1f} | {row['weights_gb']:.1f}", f"{listing.smallest_card(row['peak_gb'])} GB"
        offloaded = f"{row['peak_gb_offload_model']:.1f} | {row['peak_gb_offload_sequential']:.1f}"
        work = f"{row['tflop'] / 1000:.1f}"
        assert f"| `{name}` | {row['windows']:.0f} | {size} | {card} | {offloaded} | {work} |" in MODELS


def test_every_cell_of_the_table_of_families_names_its_test() -> None:
    """What is claimed is tested; what is not is said to be neither."""
    table = FAMILIES.partition("## What each family can")[2].partition("\n#")[0]
    header, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    served = [module.__name__.rpartition(".")[2] for module in dict.fromkeys(families._families().values())]
    assert sorted(name.strip("`| ") for name in header if name.strip("| ")) == sorted(served)
    assert len(rows) > 30
    for capability, *cells in rows:
        assert len(cells) == len(served), capability
        for cell in cells:
            claim = re.fullmatch(r"\[(?:yes|refused|cut, with a note)\]\(\.\./(tests/[\w/]+\.py)#(test_\w+)\)", cell)
            if claim is None:
                assert cell in ("not tested", "there is none"), f"{capability}: {cell}"
            else:
                assert f"def {claim[2]}(" in (ROOT / claim[1]).read_text(encoding="utf-8"), f"{capability}: {cell}"


def test_links_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *PAGES, *(ROOT / "benchmarks").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_readme_commands_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert len(commands("synccontrol")) > 3
    for command in commands("synccontrol"):
        argv = shlex.split(command)[1:]
        before = set(tmp_path.glob("out/**/*.png"))
        if "model" in vars(parser.build_parser().parse_args(argv)):  # a download: only planned here
            assert main.main([*argv, "--dry-run", "--offline"]) == terminal.DONE, capsys.readouterr().err
            continue
        assert main.main([*argv, *FEW_STEPS, "--offline"]) == terminal.DONE, capsys.readouterr().err
        assert set(tmp_path.glob("out/**/*.png")) > before


@pytest.mark.parametrize("command", commands("synccontrol evaluate", PAGES[ROOT / "docs" / "evaluation.md"]))
def test_evaluations_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    noise = np.random.default_rng(0)
    for folder, count in (("out/plain", 2), ("out/mine", 2), ("guides", 2), ("photos", 4)):
        Path(folder).mkdir(parents=True)
        for number in range(count):  # 25 windows each: FID and KID want 50 of the montages and 100 of the reference
            blocks = noise.integers(0, 255, (2, 50, 3), dtype=np.uint8)
            picture = Image.fromarray(blocks).resize((800, 32), Image.Resampling.NEAREST)
            picture.save(Path(folder) / f"{number}.png")
    small = ["--window", "32", "--offline", "--draws", "20"]
    assert evaluation.main([*shlex.split(command)[2:], *small]) == terminal.DONE
    assert Path("out/report/report.html").exists() == ("--output" in command)


QUICK = ("one_picture", "own_control", "own_objective", "own_pipeline")  # the others have their time in the slow tests


@pytest.mark.parametrize("example", sorted(ROOT.glob("examples/*.py")), ids=lambda path: path.name)
def test_examples_are_short(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < 40


@pytest.mark.parametrize("example", [ROOT / "examples" / f"{name}.py" for name in QUICK], ids=lambda path: path.name)
def test_examples_run(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example)])
    tiny = registry.PRESETS["tiny"]
    few_steps = replace(tiny.defaults, sampling=settings.SamplingConfig(steps=2))
    monkeypatch.setattr(registry, "PRESETS", {"tiny": replace(tiny, defaults=few_steps)})
    runpy.run_path(str(example), run_name="__main__")
    assert list(tmp_path.glob("*.png"))


def test_what_the_demonstration_says_next_is_true() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    said = makefile.partition("define NEXT")[2].partition("endef")[0]
    lines = [line.strip() for line in said.splitlines() if line.startswith("  synccontrol")]
    assert len(lines) > 3
    for line in lines:
        argv = shlex.split(line)[1:]
        if argv[0] in COMMANDS:
            continue
        given = vars(parser.build_parser().parse_args(argv))
        assert (ROOT / given["guide"]).is_file() and set(given["control"]) <= set(preprocess.names())
    assert "--list-models" in said


def test_readme_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    few_steps = "seed=3, sampling=SamplingConfig(steps=2), sync=SyncConfig(steps=0))"
    exec(compile(code.replace("seed=3)", few_steps), "README", "exec"), {})
    with Image.open("valley.png") as image:
        assert image.size == (1536, 256)
