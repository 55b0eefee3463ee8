"""python -m synccontrol --control depth --guide wide.png --prompt "a valley at sunset"."""

import sys

from synccontrol.command.cli import main

sys.exit(main(prog="python -m synccontrol"))
