"""The tiny checkpoints of the flow-matching families, written once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.families import checkpoints_flow


@pytest.fixture(scope="session")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny random Z-Image and its ControlNets."""
    folder = tmp_path_factory.mktemp("z_image")
    checkpoints_flow.write_z_image(folder)
    return folder


@pytest.fixture(scope="session")
def qwen_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny random Qwen-Image and its ControlNet."""
    folder = tmp_path_factory.mktemp("qwen_image")
    checkpoints_flow.write_qwen_image(folder)
    return folder
