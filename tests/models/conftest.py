"""The tiny checkpoints that the tests of families use."""

from tests.families.conftest import qwen_image, z_image

__all__ = ["qwen_image", "z_image"]
