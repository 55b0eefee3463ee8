"""What networks saw in crops, held block by block, so that memory does not grow with how many crops there are."""

import abc
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synccontrol.errors import ModelError
from synccontrol.evaluate.dataset import Crops, Gallery, Montage
from synccontrol.evaluate.measurement import INCEPTION, Settings
from synccontrol.families import checkpoints
from synccontrol.preprocess.hub import is_off
from synccontrol.sampling import objectives


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What a network saw in n crops; a part that it does not have is empty."""

    points: tuple[Tensor, ...] = ()  # one (d,) a crop: LPIPS is the squared distance between two of them
    grams: tuple[Tensor, ...] = ()  # one (n, c, c) a layer
    pooled: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))  # (n, c): mean over the crop

    def __len__(self) -> int:
        return max(len(self.points), len(self.pooled), *(len(layer) for layer in self.grams), 0)

    @property
    def bytes(self) -> int:
        """Returns how much memory it takes."""
        return sum(part.nbytes for part in (*self.points, *self.grams, self.pooled))


class Seen:
    """What a network sees in n crops, block by block; the last block that was asked for is kept.

    Args:
        look: returns what it sees in crops start..stop.
        n: how many crops there are.
        block: how many are looked at together.
    """

    def __init__(self, look: Callable[[int, int], Look], n: int, block: int) -> None:
        self.starts = range(0, n, block)
        self._look, self._n, self._size = look, n, block
        self._last: tuple[int, Look] | None = None

    def block(self, start: int) -> Look:
        """Returns what it sees in the block that begins at a crop, one of `starts`."""
        if self._last is None or self._last[0] != start:
            self._last = None  # before the next one is made
            self._last = start, self._look(start, min(start + self._size, self._n))
        return self._last[1]

    def pairs(self, other: "Seen") -> Iterator[tuple[Look, int, Look, int]]:
        """Yields crop i of this and crop j of another for all i < j: look and place in it, twice."""
        for start in self.starts:
            one = self.block(start)
            for begin in other.starts:
                if begin < start:
                    continue
                two = one if other is self and begin == start else other.block(begin)
                for i, j in itertools.product(range(len(one)), range(len(two))):
                    if start + i < begin + j:
                        yield one, i, two, j


HELD = 2**30  # bytes that a block of what a network saw may take; two blocks are compared, five are held at most
PIXELS = 2**19  # that a network is shown in one call at most, whatever the windows' size
NO_MODEL_HINT = "name a folder that holds such a model, or leave this figure out"
VGG19 = "vgg19"
STYLE_LAYERS = 5  # the first five convolutions (SyncDiffusion, eval_code/eval_style_loss.py)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's


class AbstractEye(abc.ABC):
    """A network that looks at crops."""

    @abc.abstractmethod
    def look(self, crops: Tensor) -> Look:
        """Returns what it sees in crops (n, 3, H, W) in 0..1; all parts lie on the CPU."""


class PerceptualEye(AbstractEye):
    """The network of an LPIPS distance.

    `points`: its unit features times the root of the distance's weights. `pooled`: the last layer's unit features,
    averaged over the crop, times the root of their number, so that their squares are of the order of 1.
    """

    def __init__(self, distance: objectives.FeatureDistance, device: str) -> None:
        self._distance, self._device = distance, device
        network = distance.network.to(device=device, memory_format=torch.channels_last)
        self._roots = [layer.model[-1].weight.clamp_min(0).sqrt() for layer in network.lins]
        self._grams: list[Tensor] = []
        convolutions = [module for module in network.net.modules() if isinstance(module, nn.Conv2d)]
        for convolution in convolutions[:STYLE_LAYERS]:
            convolution.register_forward_hook(self._see_style)

    def look(self, crops: Tensor) -> Look:
        self._grams = []
        features = self._distance.features((crops * 2 - 1).to(self._device, memory_format=torch.channels_last))
        weighed = [
            layer * (root / (layer.shape[-2] * layer.shape[-1]) ** 0.5)
            for layer, root in zip(features, self._roots, strict=True)
        ]
        points = tuple(torch.cat([layer[i].flatten() for layer in weighed]).cpu() for i in range(len(crops)))
        pooled = features[-1].mean(dim=(2, 3)) * features[-1].shape[1] ** 0.5
        return Look(points=points, grams=tuple(gram.cpu() for gram in self._grams), pooled=pooled.cpu())

    def _see_style(self, module: nn.Module, inputs: Any, features: Tensor) -> None:
        self._grams.append(gram_matrix(features))  # now: the ReLU that follows works in place


class StyleEye(AbstractEye):
    """The first five convolutions of a VGG-19, for the published style loss."""

    def __init__(self, layers: nn.Sequential, device: str) -> None:
        """`layers` are torchvision's `vgg19().features`."""
        self._layers, self._device = layers.eval().requires_grad_(False).to(device), device

    def look(self, crops: Tensor) -> Look:
        mean, deviation = (torch.tensor(side).view(1, 3, 1, 1) for side in IMAGENET)
        features, grams = ((crops - mean) / deviation).to(self._device), []
        for layer in self._layers:
            features = layer(features)
            if isinstance(layer, nn.Conv2d):
                grams.append(gram_matrix(features).cpu())
            if len(grams) == STYLE_LAYERS:
                break
        return Look(grams=tuple(grams))


class InceptionEye(AbstractEye):
    """The Inception-v3 of FID (2048 features), as torch-fidelity brings it and torchmetrics uses it."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self._network, self._device = network.to(device), device

    def look(self, crops: Tensor) -> Look:
        pooled: Tensor = self._network((crops * 255).round().to(self._device, torch.uint8))
        return Look(pooled=pooled.cpu())


class VisionEye(AbstractEye):
    """A transformers vision model (CLIP, SigLIP, DINOv2, ...); `pooled` is its own summary of a picture."""

    def __init__(self, name: str, device: str, offline: bool) -> None:
        """Raises `ModelError` when there is no such folder or hub id."""
        from transformers import AutoImageProcessor, AutoModel

        def load(local: bool) -> tuple[Any, Any]:
            processor = AutoImageProcessor.from_pretrained(name, local_files_only=local)
            return processor, AutoModel.from_pretrained(name, local_files_only=local)

        self._process, network = checkpoints.fetch(load, [name], offline, NO_MODEL_HINT)
        network = getattr(network, "vision_model", network)  # models of pictures and text have one
        self._network, self._device = network.eval().requires_grad_(False).to(device), device

    def look(self, crops: Tensor) -> Look:
        inputs = self._process(images=list((crops * 255).round().to(torch.uint8)), return_tensors="pt")
        pooled: Tensor = self._network(**inputs.to(self._device)).pooler_output
        return Look(pooled=pooled.flatten(1).cpu())


def gram_matrix(features: Tensor) -> Tensor:
    """Returns G = F F^T / (c h w) of each of features (n, c, h, w), (n, c, c) (eval_style_loss.py, `gram_matrix`)."""
    n, c, h, w = features.shape
    flat = features.reshape(n, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


class Eyes:
    """The networks of one evaluation, each loaded once, with the small part of what they saw of each montage."""

    def __init__(self, gallery: Gallery, settings: Settings) -> None:
        self._gallery, self._settings = gallery, settings
        self._loaded: dict[str, AbstractEye] = {}
        self._pooled: dict[tuple[str, str], Tensor] = {}
        self._block: dict[str, int] = {}  # crops whose looks are held, by network

    def load(self, name: str) -> AbstractEye:
        """Returns the network of a name: of an objective, "vgg19", "inception", or a vision model's id or folder.

        Raises:
            ModelError: its weights cannot be had.
        """
        if name not in self._loaded:
            self._loaded[name] = _load(name, self._settings.device, self._settings.offline)
        return self._loaded[name]

    @torch.inference_mode()
    def see(self, name: str, crops: Tensor) -> Look:
        """Returns what a network sees in crops (n, 3, H, W) in 0..1."""
        area = crops.shape[-2] * crops.shape[-1]
        batch = min(self._settings.window_batch, max(1, PIXELS // area))
        looks = [self.load(name).look(some) for some in torch.split(crops, batch)]
        return Look(
            points=tuple(point for look in looks for point in look.points),
            grams=tuple(torch.cat(layers) for layers in zip(*(look.grams for look in looks), strict=True)),
            pooled=torch.cat([look.pooled for look in looks]),
        )

    def seen(self, name: str, montage: Montage) -> Seen:
        """Returns what a network sees in the crops of a montage, in blocks that memory is for."""
        crops = self._gallery.crops(montage)
        if name not in self._block:
            self._block[name] = max(1, HELD // self.see(name, crops.take(0, 1)).bytes)

        def look(start: int, stop: int) -> Look:
            found = self.see(name, crops.take(start, stop))
            if stop - start == len(crops):
                self._pooled[name, montage.name] = found.pooled
            return found

        return Seen(look, len(crops), self._block[name])

    def pool(self, name: str, crops: Crops) -> Tensor:
        """Returns the pooled features (n, c) of crops; of the rest no more is held than of one batch."""
        batch = self._settings.window_batch
        return torch.cat(
            [self.see(name, crops.take(start, start + batch)).pooled for start in range(0, len(crops), batch)]
        )

    def pooled(self, name: str, montage: Montage) -> Tensor:
        """Returns the pooled features (n, c) of the crops of a montage."""
        if (name, montage.name) not in self._pooled:
            self._pooled[name, montage.name] = self.pool(name, self._gallery.crops(montage))
        return self._pooled[name, montage.name]


def _load(name: str, device: str, offline: bool) -> AbstractEye:
    from torchvision import models as tv

    published: dict[str, tuple[Any, Callable[[], AbstractEye]]] = {
        "lpips": (tv.VGG16_Weights.IMAGENET1K_V1, lambda: _perceptual("lpips", device)),
        "lpips-alex": (tv.AlexNet_Weights.IMAGENET1K_V1, lambda: _perceptual("lpips-alex", device)),
        VGG19: (
            tv.VGG19_Weights.IMAGENET1K_V1,
            lambda: StyleEye(tv.vgg19(weights=tv.VGG19_Weights.IMAGENET1K_V1).features, device),
        ),
    }
    if name in published:
        weights, load = published[name]
        _fetch_torchvision(weights.url, offline)
        return load()
    if name.startswith("stlpips"):
        return _perceptual(name, device)
    return _inception(device, offline) if name == INCEPTION else VisionEye(name, device, offline)


def _perceptual(name: str, device: str) -> PerceptualEye:
    distance = objectives.load(name)
    assert isinstance(distance, objectives.FeatureDistance)
    return PerceptualEye(distance, device)


def _fetch_torchvision(url: str, offline: bool) -> None:
    """Puts weights into torchvision's cache. Raises `ModelError` when they are not there and cannot be downloaded."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if file.is_file():
        return
    reason = "the network is not to be used"
    if not is_off(offline):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
            return
        except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; RuntimeError: another file came
            reason = str(error)
    raise ModelError(f"needs torchvision's {file.name}, which is not here ({reason}); put it into {file.parent}")


def _inception(device: str, offline: bool) -> InceptionEye:
    from torchmetrics.image.fid import NoTrainInceptionV3

    file = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    try:
        if is_off(offline) and not file.is_file():
            raise FileNotFoundError(f"{file.name} is not in {file.parent}")
        network = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
    except (ImportError, OSError) as error:
        raise ModelError(
            f"the inception network cannot be had ({error}); pip install torch-fidelity and put {INCEPTION_FILE} into "
            f"{file.parent}, or choose other features"
        ) from error
    return InceptionEye(network, device)
