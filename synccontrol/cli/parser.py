"""The flags of the command line, made from the schema of settings."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import synccontrol
from synccontrol.cli.terminal import Parser, overview
from synccontrol.spec.image_settings import (
    CONFIGS,
    CONTENT,
    MODEL_GROUP,
    ImageSettings,
    RunSettings,
    renamed_flags,
)
from synccontrol.spec.schema import Flag, flags, record
from synccontrol.spec.settings import Adapters, Img2ImgConfig, SamplingConfig, SyncConfig, UpscaleConfig, WindowConfig

PUBLISHED = record(SamplingConfig(), WindowConfig(), SyncConfig())
GROUPS = {Adapters: MODEL_GROUP, Img2ImgConfig: CONTENT, UpscaleConfig: CONTENT}
EXAMPLES = (
    'synccontrol --control depth --guide wide.png --prompt "a valley at sunset"',
    'synccontrol --control canny --guide guides/ --prompt "a street in the rain" --output out/',
    'synccontrol --prompt "a mountain range at dawn" --width 2048',
)


def build_parser(prog: str = "synccontrol", defaults: Mapping[str, Any] = PUBLISHED) -> argparse.ArgumentParser:
    """Return the parser. The namespace that it makes holds the flags that were given and nothing else.

    Args:
        prog: how the program was called.
        defaults: what help shows as the defaults of the config flags, as `schema.record`.
    """
    parser = Parser(
        prog=prog,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Generate one coherent wide image that follows a guide.\n\nother commands:\n{overview()}\n\n"
        f"control types: {', '.join(control_types())}",
        epilog="The defaults of sampling, windows and sync are the model's own: name another --model or --preset,\n"
        "and --help shows theirs.",
    )
    parser.renamed = renamed_flags()
    parser.add_argument("--version", action="version", version=f"synccontrol {synccontrol.__version__}")
    plain = [
        (flag, flag.setting.group or GROUPS[cls], flag.default)
        for cls in (ImageSettings, Img2ImgConfig, UpscaleConfig, Adapters, RunSettings)
        for flag in flags(cls).values()
    ]
    configs = [(flag, title, defaults[flag.key]) for title, cls in CONFIGS.items() for flag in flags(cls).values()]
    groups = {
        title: parser.add_argument_group(title) for title in dict.fromkeys(title for _, title, _ in plain + configs)
    }
    add_flags([(flag, groups[title], default) for flag, title, default in plain + configs])
    groups[MODEL_GROUP].add_argument(
        "--list-models", action="store_true", help="list the named models: what they are, what they need, what is here"
    )
    return parser


def control_types() -> list[str]:
    """Return the names of the control types, without loading them."""
    root = Path(synccontrol.__file__).parent
    folder = next(path for path in (root / "preprocess", root.parent / "preprocess") if path.is_dir()) / "controls"
    return sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")


def add_flags(settings: Iterable[tuple[Flag, argparse._ArgumentGroup, Any]]) -> None:
    """Add settings to a parser.

    Args:
        settings: each with its group of the parser, and the default that help shows.
    """
    for flag, group, default in settings:
        setting = flag.setting
        text = setting.help + (f": {', '.join(setting.choices)}" if setting.choices else "")
        default = setting.shown_default or default
        if default is not None and default is not False and default not in ((), "") and "(default" not in text:
            text += f" (default: {default})"
        options: dict[str, Any] = {"help": text.replace("%", "%%")}
        if flag.scalar is bool:
            options["action"] = argparse.BooleanOptionalAction if not setting.group else "store_true"
            group.add_argument(f"--{flag.name}", **options)
            continue
        options["type"] = flag.scalar
        if flag.is_anchor:
            options["type"] = _anchor
        elif setting.random:
            options["type"] = _seed
        elif flag.is_path:
            options["type"] = path
        metavar: Any = setting.words or flag.name.split("-")[-1].upper()
        options["metavar"] = metavar[0] if isinstance(metavar, tuple) and len(metavar) == 1 else metavar
        if setting.per_control:
            options |= {"nargs": "+", "action": "extend"}  # one for all; or one per control, at once or repeated
        elif len(setting.words) > 1:
            options |= {"nargs": len(setting.words), "action": _Words}
        elif flag.is_list:
            options["action"] = "append"
        group.add_argument(f"--{flag.name}", **options)


class _Words(argparse.Action):
    """Keep several words as one text."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, " ".join(values))


def _anchor(text: str) -> int | str:
    number = text.removeprefix("-")
    return int(text) if number.isascii() and number.isdecimal() else str(path(text))


def _seed(text: str) -> int | str:
    return text if text == "random" else int(text)


def path(text: str) -> Path:
    """Return a path of the command line. Raises `argparse.ArgumentTypeError` for an empty one."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a file or folder")
    return Path(text)
