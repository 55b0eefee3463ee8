"""The public interface is typed: a type checker finds what a caller misspells, without any plug-in."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

RIGHT = """
from synccontrol import Montage, SamplingConfig, SyncConfig, WindowConfig

montage = Montage.from_pretrained("tiny", controls=["depth"])
result = montage(
    "a valley", height=256, width=768, sampling=SamplingConfig(steps=3), sync=SyncConfig(weight=0.0), preset="fast"
)
for step in montage.steps("a valley", height=256, width=768, windows=WindowConfig(loop=True)):
    print(step.index, step.steps, montage.settings("best").sampling.steps)
result.save("a.png")
"""
WRONG = {
    'montage("a valley", heigth=256)': "heigth",
    'montage("a valley", sampling=WindowConfig())': "WindowConfig",
    'montage("a valley", preset="quick")': "quick",
    "SamplingConfig(stepz=3)": "stepz",
    'SamplingConfig(steps="3")': "str",
    'montage.settings("quick")': "quick",
    'Montage.from_pretrained("tiny", control=["depth"])': "control",
}


def test_a_type_checker_finds_misspelt_arguments_wrong_configs_and_wrong_presets(tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(RIGHT + "\n".join(WRONG) + "\n")
    first = RIGHT.count("\n") + 1
    config = tmp_path / "mypy.ini"
    config.write_text(
        "[mypy]\nstrict = true\nfollow_imports = silent\nignore_missing_imports = true\nincremental = false\n"
        "[mypy-torch.*,numpy.*,diffusers.*,transformers.*,cv2.*,scipy.*,preprocess.*]\nfollow_imports = skip\n"
    )  # libraries whose types the interface's own do not depend on: to read them takes minutes
    command = [sys.executable, "-m", "mypy", f"--config-file={config}", "--no-error-summary", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    found = {int(line.split(":")[1]): line for line in done.stdout.splitlines() if ": error:" in line}
    assert sorted(found) == list(range(first, first + len(WRONG))), done.stdout + done.stderr
    for (source, word), line in zip(WRONG.items(), (found[number] for number in sorted(found)), strict=True):
        assert word in line, source
