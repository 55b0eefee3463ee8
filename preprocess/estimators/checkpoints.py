"""Checkpoints of detectors: where they are published, how they are loaded, and on which device they run."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from synccontrol.preprocess import hub
from synccontrol.preprocess.control import Runtime
from synccontrol.preprocess.errors import DetectorError, HubError, reason
from synccontrol.preprocess.hub import muted

if TYPE_CHECKING:
    import torch


def torch_device(name: str) -> torch.device:
    """Returns the torch device `name`.

    Raises:
        DetectorError: There is no such device here.
        RuntimeError: It is out of memory.
    """
    import torch

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        if "out of memory" in str(error):  # it is there, and may have room later
            raise
        raise DetectorError(f"device '{name}' cannot be used: {reason(error)}; use cpu") from error


Loaded = TypeVar("Loaded")

OFFLINE_HINT = "the detector 'tiny' needs no download"


def fetch(load: Callable[[bool], Loaded], model: str, runtime: Runtime, hint: str = OFFLINE_HINT) -> Loaded:
    """Returns what `load` makes of a model, without the network where that is possible, as `hub.fetch`.

    Args:
        load: Loads the model; its argument says whether only files on this machine may be used.
        model: A hub id or a folder.
        runtime: Whether the network may be used.
        hint: What works without the model, for the error.

    Raises:
        DetectorError: The model cannot be had, or is of another kind.
    """
    try:
        return hub.fetch(load, [model], runtime.offline)
    except HubError as error:
        raise DetectorError(f"{error}; {hint}") from error


ANNOTATORS = "lllyasviel/Annotators"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The published weights of one network."""

    file: str  # in its repository, and in a folder of the user's own
    repository: str = ANNOTATORS  # hub id


CHECKPOINTS = {
    "hed": Checkpoint(file="ControlNetHED.pth"),
    "pidi": Checkpoint(file="table5_pidinet.pth"),
    "teed": Checkpoint(file="5_model.pth", repository="fal-ai/teed"),
    "realistic": Checkpoint(file="sk_model.pth"),
    "coarse": Checkpoint(file="sk_model2.pth"),
    "anime": Checkpoint(file="netG.pth"),
    "mlsd": Checkpoint(file="mlsd_large_512_fp32.pth"),
    "bae": Checkpoint(file="scannet.pt"),
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a detector takes its weights from."""

    runtime: Runtime  # the device, and whether weights may be downloaded
    hint: str  # what works without them, for errors
    folder: str | None = None  # with the weights; None: where they are published

    def network(self, name: str, build: Callable[[], torch.nn.Module], key: str | None = None) -> torch.nn.Module:
        """Returns a network with its weights, in float32, on the device, ready to predict.

        Args:
            name: One of `CHECKPOINTS`.
            build: Imports and builds the network, with any weights.
            key: Under which entry of the file its weights are; None: they are the file.

        Raises:
            DetectorError: The weights, the package or the device cannot be had.
        """
        import torch

        from synccontrol.preprocess.estimators.annotators import controlnet_aux

        device, file = torch_device(self.runtime.device), self._file(name)
        with controlnet_aux(self.hint):
            network = build()
        try:
            with muted():
                stored = torch.load(file, map_location="cpu", weights_only=True)
            stored = stored if key is None else stored[key]
            network.load_state_dict({weight.removeprefix("module."): value for weight, value in stored.items()})
        except (OSError, EOFError, LookupError, AttributeError, TypeError, RuntimeError, pickle.PickleError) as error:
            unreadable = isinstance(error, (EOFError, pickle.PickleError))
            why = "it is no file of weights" if unreadable else reason(error)
            raise DetectorError(f"'{file}' does not hold the weights of '{name}' ({why}); {self.hint}") from error
        return network.float().eval().to(device)

    def _file(self, name: str) -> Path:
        """Returns where the weights of a network lie on this machine, downloaded if need be."""
        from huggingface_hub import hf_hub_download

        checkpoint = CHECKPOINTS[name]
        if self.folder is not None:
            return Path(self.folder) / checkpoint.file
        hub_id, file = checkpoint.repository, checkpoint.file
        found = fetch(
            lambda local: hf_hub_download(hub_id, file, local_files_only=local), hub_id, self.runtime, self.hint
        )
        return Path(found)


def named_by(folder: str, names: Sequence[str]) -> str:
    """Returns which of the networks `names` has its weights in `folder`: the first whose file is there.

    Raises:
        DetectorError: There is no such folder, or none of the files is in it.
    """
    for name in names:
        if (Path(folder) / CHECKPOINTS[name].file).is_file():
            return name
    files = " or ".join(CHECKPOINTS[name].file for name in names)
    raise DetectorError(f"'{folder}' is no folder with {files}; name a folder that has it, or {', '.join(names)}")
