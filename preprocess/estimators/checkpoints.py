"""Load the published checkpoints of detectors onto a device."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from synccontrol.preprocess import hub
from synccontrol.preprocess.control import Runtime
from synccontrol.preprocess.errors import DetectorError, HubError, reason
from synccontrol.preprocess.hub import suppress_output

if TYPE_CHECKING:
    import torch


def torch_device(name: str) -> torch.device:
    """Return the torch device of a name.

    Raises:
        DetectorError: the device does not exist.
        RuntimeError: the device is out of memory.
    """
    import torch

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        if "out of memory" in str(error):  # the device exists, and may have memory later
            raise
        raise DetectorError(f"device '{name}' cannot be used: {reason(error)}; use cpu") from error


Loaded = TypeVar("Loaded")

OFFLINE_HINT = "the detector 'tiny' needs no download"


def fetch(load: Callable[[bool], Loaded], model: str, runtime: Runtime, hint: str = OFFLINE_HINT) -> Loaded:
    """Load a model by `hub.fetch`, without the network if its files are on this machine.

    Args:
        load: loads the model; its argument is `local_files_only`.
        model: a hub id or a folder.
        runtime: whether the network may be used.
        hint: an alternative to the model, for the error message.

    Raises:
        DetectorError: the model is not available, or has an unexpected type.
    """
    try:
        return hub.fetch(load, [model], runtime.offline)
    except HubError as error:
        raise DetectorError(f"{error}; {hint}") from error


ANNOTATORS = "lllyasviel/Annotators"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The published weights of one network."""

    file: str  # name in the repository, and in a local folder
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
    """The source of the weights of a detector."""

    runtime: Runtime  # the device, and whether weights may be downloaded
    hint: str  # an alternative to the weights, for error messages
    folder: str | None = None  # a local folder with the weights; None: the published repository

    def network(self, name: str, build: Callable[[], torch.nn.Module], key: str | None = None) -> torch.nn.Module:
        """Load a network with its weights in float32, on the device and in evaluation mode.

        Args:
            name: one of `CHECKPOINTS`.
            build: imports and builds the network, with any weights.
            key: the entry of the file with the weights; None: the whole file.

        Raises:
            DetectorError: the weights, the package or the device are not available.
        """
        import torch

        from synccontrol.preprocess.estimators.annotators import controlnet_aux

        device, file = torch_device(self.runtime.device), self._file(name)
        with controlnet_aux(self.hint):
            network = build()
        try:
            with suppress_output():
                stored = torch.load(file, map_location="cpu", weights_only=True)
            stored = stored if key is None else stored[key]
            network.load_state_dict({weight.removeprefix("module."): value for weight, value in stored.items()})
        except (OSError, EOFError, LookupError, AttributeError, TypeError, RuntimeError, pickle.PickleError) as error:
            is_unreadable = isinstance(error, (EOFError, pickle.PickleError))
            cause = "it is no file of weights" if is_unreadable else reason(error)
            raise DetectorError(f"'{file}' does not hold the weights of '{name}' ({cause}); {self.hint}") from error
        return network.float().eval().to(device)

    def _file(self, name: str) -> Path:
        """Return the local path of the weights of a network, downloaded if necessary."""
        from huggingface_hub import hf_hub_download

        checkpoint = CHECKPOINTS[name]
        if self.folder is not None:
            return Path(self.folder) / checkpoint.file
        hub_id, file = checkpoint.repository, checkpoint.file
        path = fetch(
            lambda local: hf_hub_download(hub_id, file, local_files_only=local), hub_id, self.runtime, self.hint
        )
        return Path(path)


def network_in_folder(folder: str, names: Sequence[str]) -> str:
    """Return the first of the networks `names` whose weights are in `folder`.

    Raises:
        DetectorError: the folder does not exist, or contains none of the files.
    """
    for name in names:
        if (Path(folder) / CHECKPOINTS[name].file).is_file():
            return name
    files = " or ".join(CHECKPOINTS[name].file for name in names)
    raise DetectorError(f"'{folder}' is no folder with {files}; name a folder that has it, or {', '.join(names)}")
