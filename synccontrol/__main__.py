"""python -m synccontrol --control depth --guide wide.png --prompt "a valley at sunset"."""

import sys

from synccontrol.cli.main import main

sys.exit(main(prog="python -m synccontrol"))
