"""The flags of `synccontrol app`."""

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from synccontrol.cli.generate import check
from synccontrol.cli.terminal import Parser
from synccontrol.errors import ConfigError
from synccontrol.spec.image_settings import EXECUTORS, LOCAL, defaults
from synccontrol.spec.schema import flags
from synccontrol.spec.settings import Adapters
from synccontrol.studio.form_values import MACHINE, NAMING
from synccontrol.studio.queue import Limits

HERE = ("127.0.0.1", "localhost", "::1")
PORT = 7860
MODEL = "tiny"
PASSWORD = "SYNCCONTROL_PASSWORD"  # environment variable; a flag would show in lists of processes
USER = "synccontrol"
SHORTEST = 8  # characters of a password


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the server."""

    host: str = HERE[0]
    port: int = PORT
    share: bool = False
    password: str = ""  # empty: none
    root_path: str = ""  # path below which a proxy serves it, like /synccontrol
    open: bool = False  # whether to open a browser
    engine: str = LOCAL
    workers: int = 1
    address: str = ""  # of a cluster of Ray
    models: tuple[str, ...] = (MODEL,)
    machine: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {name: defaults()[name] for name in MACHINE})
    adapters: Adapters = Adapters()  # of the model
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        public = self.share or self.host not in HERE
        if public and len(self.password) < SHORTEST:
            what = "--share" if self.share else f"--host {self.host}"
            raise ConfigError(
                f"{what} gives others access and needs a password: set {PASSWORD} to {SHORTEST} characters or more"
            )
        if len(self.models) > 1 and self.adapters != Adapters():
            raise ConfigError(
                "--lora, --ip-adapter, --vae and --tiny-vae are one model's; name it with one --model alone"
            )
        if self.root_path and not (self.root_path.startswith(("/", "http://", "https://"))):
            raise ConfigError(f"--root-path is {self.root_path!r}; it starts with /, or is a whole address")
        check(argparse.Namespace(engine=self.engine, workers=self.workers, address=self.address))
        if not 0 < self.port < 65536:
            raise ConfigError(f"--port is {self.port}; it must be between 1 and 65535")


def build_parser(prog: str = "synccontrol app") -> argparse.ArgumentParser:
    """Return the parser."""
    parser = Parser(prog=prog, allow_abbrev=False, description="Serves the page in the browser.")
    parser.add_argument(
        "--host", default=HERE[0], help="address to listen at; all but this machine's own need a password"
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"port to listen at (default: {PORT})")
    parser.add_argument("--open", action="store_true", help="open a browser")
    parser.add_argument("--share", action="store_true", help="a public address by Gradio's servers; needs a password")
    parser.add_argument("--root-path", default="", help="path below which a proxy serves the page, like /synccontrol")
    parser.add_argument(
        "--model", action="append", help=f"model on offer: preset, folder, hub id; repeat it (default: {MODEL})"
    )
    for flag, field in flags(Adapters).items():
        if field.key in NAMING:
            parser.add_argument(f"--{flag}", action="append" if field.is_list else "store", help=field.setting.help)
    parser.add_argument(
        "--device",
        default=defaults()["device"],
        help="cpu, cuda, cuda:1, mps; several, as cuda:0,cuda:1, share the windows of an image (default: the fastest)",
    )
    parser.add_argument("--dtype", default=defaults()["dtype"], help="float32, float16, bfloat16")
    parser.add_argument(
        "--offload", default=defaults()["offload"], help="what waits in memory: none, model, sequential"
    )
    parser.add_argument("--offline", action="store_true", help="never use the network")
    parser.add_argument(
        "--engine", choices=EXECUTORS, default=LOCAL, help="local, this process; ray: workers of their own"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="workers of --engine ray, each with the model (default: 1)"
    )
    parser.add_argument("--address", default="", help="cluster of --engine ray; none: a new one on this machine")
    group = parser.add_argument_group("limits")
    for flag, field in flags(Limits).items():
        group.add_argument(
            f"--{flag}", type=int, default=field.default, help=f"{field.setting.help} (default: {field.default})"
        )
    return parser


def parsed(argv: Sequence[str], prog: str) -> Options:
    """Return the options of a command line. Raises `ConfigError` for a wrong one."""
    given = vars(build_parser(prog).parse_args(argv))
    limits = {flag.field: given.pop(flag.key) for flag in flags(Limits).values()}
    machine = {name: given.pop(name) for name in MACHINE}
    adapters = {name: value for name in NAMING if (value := given.pop(name))}
    return Options(
        models=tuple(given.pop("model") or (MODEL,)),
        machine=machine,
        adapters=Adapters(**adapters),
        limits=Limits(**limits),
        password=os.environ.get(PASSWORD, ""),
        **given,
    )
