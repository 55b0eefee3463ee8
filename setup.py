"""Which packages are installed: a checkout also offers `import preprocess`, a wheel claims no such name."""

import sys

from setuptools import find_packages, setup

CHECKOUT = "editable_wheel" in sys.argv

setup(packages=find_packages(include=["synccontrol*", *(["preprocess*"] if CHECKOUT else [])]))
