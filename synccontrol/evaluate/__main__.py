"""Score folders of montages: python -m synccontrol.evaluate FOLDER [FOLDER2 ...]."""

import sys

from synccontrol.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
