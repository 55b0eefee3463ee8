"""The flags. Those of sampling, windows and sync are made from the config classes."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import synccontrol
from synccontrol.cli.terminal import Parser, overview
from synccontrol.models.presets import DEFAULT, NAMES
from synccontrol.spec.settings import (
    MIDDLE,
    Adapters,
    Img2ImgConfig,
    SamplingConfig,
    SyncConfig,
    UpscaleConfig,
    WindowConfig,
    flags,
    record,
)

CONFIGS = MappingProxyType({"sampling": SamplingConfig, "windows": WindowConfig, "sync": SyncConfig})
PUBLISHED = record(SamplingConfig(), WindowConfig(), SyncConfig())
SAID = {
    "strength": "0.6, or 1 where a mask or an extension is drawn",
    "extend": "none",
    "tall": "upscale",
}  # in place of a default
LOCAL, RAY = ENGINES = ("local", "ray")
DEFAULTS: Mapping[str, Any] = MappingProxyType(  # of the flags that are no config's
    {
        "guide": None,
        "control": (),
        "control_map": (),
        "ip_image": None,
        "region": (),
        "region_map": None,
        "init_image": None,
        "mask": None,
        "style_image": None,
        "prompt": "",
        "negative_prompt": "",
        "width": None,
        "height": None,
        "fit": "exact",
        "seed": 0,
        "seeds": None,
        "count": None,
        "settings": None,
        "model": "tiny",
        "preset": DEFAULT,
        "controlnet": (),
        "detector": (),
        "device": "auto",
        "dtype": "auto",
        "offload": "none",
        "offline": False,
        "output": Path("out"),
        "overwrite": False,
        "save_control_map": False,
        "report": False,
        "engine": LOCAL,
        "workers": 1,
        "address": "",
        "dry_run": False,
        "quiet": False,
    }
)


def build_parser(prog: str = "synccontrol", defaults: Mapping[str, Any] = PUBLISHED) -> argparse.ArgumentParser:
    """Returns the parser. What it parses holds the flags that were given and nothing else.

    Args:
        prog: how the program was called.
        defaults: what help shows as the defaults of the config flags, as `config.record`.
    """
    parser = Parser(
        prog=prog,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Makes one coherent wide picture that follows a guide.\n\nother commands:\n{overview()}",
        epilog="The defaults of sampling, windows and sync are the model's own: name another --model or --preset,\n"
        "and --help shows theirs.",
    )
    parser.add_argument("--version", action="version", version=f"synccontrol {synccontrol.__version__}")
    _add_what(parser.add_argument_group("what to draw"))
    _add_model(parser.add_argument_group("model"))
    for name, config in CONFIGS.items():
        group = parser.add_argument_group(name)
        for flag, field in flags(config).items():
            _add_option(group, flag, field, defaults[flag.replace("-", "_")])
    _add_output(parser.add_argument_group("output"))
    _add_engine(parser.add_argument_group("engine"))
    return parser


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--guide", type=path, help="picture, folder of pictures (also s3://...), quoted glob, or JSONL or CSV manifest"
    )
    group.add_argument("--control", action="append", help="control type; repeat it for several at once")
    group.add_argument(
        "--control-map",
        type=path,
        action="append",
        help="ready-made control map instead of a guide, or a folder of them, one per --control; for pose also "
        "OpenPose JSON. TYPE=PATH beside a --guide: the map of that control, the others are detected",
    )
    group.add_argument("--ip-image", type=path, help="picture that the --ip-adapter is shown")
    group.add_argument("--prompt", help="what to draw")
    group.add_argument("--negative-prompt", help="what to avoid")
    group.add_argument(
        "--region",
        action="append",
        metavar="AREA: PROMPT",
        help="part of the picture with a prompt of its own, before the --prompt of all: '0-35%%: a forest', "
        "'0-512: ...' in pixels, '0-35%% x 50-100%%: ...' across x down, 'grey 128: ...' of the --region-map; then "
        "perhaps ' | avoid: people | control: 0.5 | soft: 0.1'. Repeat it for several",
    )
    group.add_argument("--region-map", type=path, help="picture in which every region is one level of grey")
    group.add_argument("--init-image", type=path, help="picture that is started from, in place of noise alone")
    group.add_argument("--mask", type=path, help="picture whose white part is drawn anew; the rest of it stays")
    for flag, field in flags(Img2ImgConfig).items():
        _add_option(group, flag, field, SAID.get(flag, field.default))
    for flag, field in flags(UpscaleConfig).items():
        _add_option(group, flag, field, SAID.get(flag, field.default))
    group.add_argument("--width", type=int, help="pixels (default: the guide's aspect)")
    group.add_argument("--height", type=int, help="pixels (default: the model's native height)")
    group.add_argument(
        "--fit",
        help="how a guide or control map of another aspect comes onto the canvas: exact (an error), crop, pad, stretch "
        "(default: exact)",
    )
    group.add_argument(
        "--style-image",
        type=path,
        help="picture that all pictures of the run follow in colours and contrast; first: the first of them",
    )
    group.add_argument("--seed", type=_seed, help="of all noise, or random (default: 0)")
    group.add_argument("--seeds", help="variations: a picture for each of these seeds, like 0-9,12")
    group.add_argument("--count", type=int, help="variations: so many pictures, with the seeds from --seed on")
    group.add_argument(
        "--settings", type=path, help="PNG made by this program, or JSON: what decides its picture becomes the default"
    )


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        help="preset, diffusers folder, hub id (owner/name, or owner/name@revision) or .safetensors file of Stable "
        "Diffusion (default: tiny, bundled)",
    )
    group.add_argument(
        "--preset",
        choices=NAMES,
        help="settings of the model, which single flags change: paper (as published), default, fast, best "
        "(default: default)",
    )
    group.add_argument(
        "--controlnet", action="append", help="folder or hub id, one per --control, or one union for all"
    )
    for flag, field in flags(Adapters).items():
        _add_option(group, flag, field, field.default or "none")
    group.add_argument("--detector", action="append", help="what makes the control map, one per --control")
    group.add_argument(
        "--device",
        help="cpu, cuda, cuda:1, mps; several, as cuda:0,cuda:1, share the windows of a picture "
        "(default: the best there is)",
    )
    group.add_argument("--dtype", help="float32, float16, bfloat16 (default: float16 on cuda, else float32)")
    group.add_argument(
        "--offload",
        help="what waits in memory for its turn on the device: none, model (whole networks), sequential (layers; slow) "
        "(default: none)",
    )
    group.add_argument("--offline", action="store_true", help="never use the network")
    group.add_argument(
        "--list-models", action="store_true", help="say what the named models are, need, and what of them is here"
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output",
        type=path,
        help="PNG file, or folder (also s3://...), where each new try gets a number (default: out)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace outputs that exist; else they are kept")
    group.add_argument("--save-control-map", action="store_true", help="write the control maps beside the picture")
    group.add_argument(
        "--report", action="store_true", help="write sheet.html beside many pictures: guides, control maps, pictures"
    )
    group.add_argument("--dry-run", action="store_true", help="say what would be done, and what it costs")
    group.add_argument("--quiet", action="store_true", help="no progress bar, no notes")


def _add_engine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--engine", choices=ENGINES, help="local: this process; ray: workers, each with the model")
    group.add_argument("--workers", type=int, help="of --engine ray (default: 1)")
    group.add_argument("--address", help="of the Ray cluster to join, or auto (default: a new one on this machine)")


def _add_option(group: argparse._ArgumentGroup, flag: str, field: dataclasses.Field[Any], default: Any) -> None:
    choices = f": {', '.join(field.metadata['choices'])}" if field.metadata["choices"] else ""
    text = f"{field.metadata['help']}{choices} (default: {default})"
    if isinstance(field.default, bool):
        group.add_argument(f"--{flag}", action=argparse.BooleanOptionalAction, help=text)
        return
    options: dict[str, Any] = {"type": type(field.default), "metavar": flag.split("-")[-1].upper()}
    if field.name.startswith("control_"):
        options |= {"nargs": "+", "action": "extend"}  # one for all; or one per control, at once or repeated
    if flag == "extend":
        options |= {"nargs": 2, "action": _Words, "metavar": ("SIDE", "PIXELS")}
    if isinstance(field.default, tuple):
        options |= {"type": str, "action": "append"}
    if field.default == MIDDLE:
        options["type"] = _anchor
    group.add_argument(f"--{flag}", help=text, **options)


class _Words(argparse.Action):
    """Keeps several words as one text."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, " ".join(values))


def _anchor(text: str) -> int | str:
    number = text.removeprefix("-")
    return int(text) if number.isascii() and number.isdecimal() else str(path(text))


def _seed(text: str) -> int | str:
    return text if text == "random" else int(text)


def path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a file or folder")
    return Path(text)
