"""The command line from a checkout: python cli.py --control depth --guide wide.png --prompt "a valley at sunset"."""

import sys

from synccontrol.cli.main import main

if __name__ == "__main__":
    sys.exit(main(prog="cli.py"))
