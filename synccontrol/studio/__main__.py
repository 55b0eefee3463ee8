"""python -m synccontrol.studio: serve the page until Ctrl+C, or SIGTERM."""

import signal
import sys
import threading
from collections.abc import Sequence

from synccontrol.cli.progress import SIGNALS
from synccontrol.cli.terminal import DONE, status
from synccontrol.errors import ConfigError
from synccontrol.studio.options import build_parser as build_parser
from synccontrol.studio.options import parsed


def main(argv: Sequence[str] | None = None, prog: str = "python -m synccontrol.studio") -> int:
    """Return the exit status: 0 done, 2 bad usage or input, 130 interrupted.

    Args:
        argv: the flags; the process's own by default.
        prog: how the program was called, for help.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    return status(lambda: _serve(arguments, prog), "the page is closed")


def _serve(argv: Sequence[str], prog: str) -> int:
    options = parsed(argv, prog)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ConfigError("the page needs Gradio: pip install 'synccontrol[app]'") from error
    from synccontrol.studio.server import served

    for number in SIGNALS:  # also in the background, where shells let programs ignore Ctrl+C
        signal.signal(number, signal.default_int_handler)
    with served(options) as address:
        print(f"The page is at {address} (Ctrl+C closes it)", flush=True)
        threading.Event().wait()
    return DONE


if __name__ == "__main__":
    sys.exit(main())
