"""Feature networks of the evaluation. Features are computed in blocks of crops, to bound memory."""

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
from synccontrol.preprocess.hub import is_offline
from synccontrol.sampling import objectives


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropFeatures:
    """The features of n crops; parts that a network does not have are empty."""

    points: tuple[Tensor, ...] = ()  # (d,) per crop: LPIPS is the squared distance of two points
    grams: tuple[Tensor, ...] = ()  # Gram matrices (n, c, c) per layer
    pooled: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))  # (n, c): mean over the crop

    def __len__(self) -> int:
        return max(len(self.points), len(self.pooled), *(len(layer) for layer in self.grams), 0)

    @property
    def bytes(self) -> int:
        """Return the memory of the features in bytes."""
        return sum(part.nbytes for part in (*self.points, *self.grams, self.pooled))


class FeatureBlocks:
    """The features of n crops, computed block by block; the last block is cached.

    Args:
        extract: returns the features of crops start..stop.
        n: number of crops.
        block: crops in one block.
    """

    def __init__(self, extract: Callable[[int, int], CropFeatures], n: int, block: int) -> None:
        self.starts = range(0, n, block)
        self._extract, self._n, self._size = extract, n, block
        self._last: tuple[int, CropFeatures] | None = None

    def block(self, start: int) -> CropFeatures:
        """Return the features of the block that begins at a crop, one of `starts`."""
        if self._last is None or self._last[0] != start:
            self._last = None  # freed before the next block is computed
            self._last = start, self._extract(start, min(start + self._size, self._n))
        return self._last[1]

    def pairs(self, other: "FeatureBlocks") -> Iterator[tuple[CropFeatures, int, CropFeatures, int]]:
        """Yield crop i of this and crop j of `other` for all i < j, each as features and index in them."""
        for start in self.starts:
            features = self.block(start)
            for begin in other.starts:
                if begin < start:
                    continue
                other_features = features if other is self and begin == start else other.block(begin)
                for i, j in itertools.product(range(len(features)), range(len(other_features))):
                    if start + i < begin + j:
                        yield features, i, other_features, j


BLOCK_BYTES = 2**30  # bytes of one block of features; two blocks are compared, at most five exist
MAX_PIXELS_PER_CALL = 2**19  # pixels in one network call, for any window size
NO_MODEL_HINT = "name a folder that holds such a model, or leave this metric out"
VGG19 = "vgg19"
STYLE_LAYERS = 5  # the first five convolutions (SyncDiffusion, eval_code/eval_style_loss.py)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's


class AbstractFeatureNetwork(abc.ABC):
    """A network that extracts features of crops."""

    @abc.abstractmethod
    def extract(self, crops: Tensor) -> CropFeatures:
        """Return the features of crops (n, 3, H, W) in 0..1; all parts are on the CPU."""


class PerceptualNetwork(AbstractFeatureNetwork):
    """The network of an LPIPS distance.

    `points` are its unit features times the square root of the distance's weights. `pooled` are the last layer's unit
    features, averaged over the crop and multiplied by the square root of their number, so their squares are about 1.
    """

    def __init__(self, distance: objectives.FeatureDistance, device: str) -> None:
        self._distance, self._device = distance, device
        network = distance.network.to(device=device, memory_format=torch.channels_last)
        self._roots = [layer.model[-1].weight.clamp_min(0).sqrt() for layer in network.lins]
        self._grams: list[Tensor] = []
        convolutions = [module for module in network.net.modules() if isinstance(module, nn.Conv2d)]
        for convolution in convolutions[:STYLE_LAYERS]:
            convolution.register_forward_hook(self._record_gram_matrix)

    def extract(self, crops: Tensor) -> CropFeatures:
        self._grams = []
        features = self._distance.features((crops * 2 - 1).to(self._device, memory_format=torch.channels_last))
        weighed = [
            layer * (root / (layer.shape[-2] * layer.shape[-1]) ** 0.5)
            for layer, root in zip(features, self._roots, strict=True)
        ]
        points = tuple(torch.cat([layer[i].flatten() for layer in weighed]).cpu() for i in range(len(crops)))
        pooled = features[-1].mean(dim=(2, 3)) * features[-1].shape[1] ** 0.5
        return CropFeatures(points=points, grams=tuple(gram.cpu() for gram in self._grams), pooled=pooled.cpu())

    def _record_gram_matrix(self, module: nn.Module, inputs: Any, features: Tensor) -> None:
        self._grams.append(gram_matrix(features))  # computed here, because the ReLU that follows works in place


class StyleNetwork(AbstractFeatureNetwork):
    """The first five convolutions of a VGG-19, for the published style loss."""

    def __init__(self, layers: nn.Sequential, device: str) -> None:
        """`layers` are torchvision's `vgg19().features`."""
        self._layers, self._device = layers.eval().requires_grad_(False).to(device), device

    def extract(self, crops: Tensor) -> CropFeatures:
        mean, deviation = (torch.tensor(side).view(1, 3, 1, 1) for side in IMAGENET)
        features, grams = ((crops - mean) / deviation).to(self._device), []
        for layer in self._layers:
            features = layer(features)
            if isinstance(layer, nn.Conv2d):
                grams.append(gram_matrix(features).cpu())
            if len(grams) == STYLE_LAYERS:
                break
        return CropFeatures(grams=tuple(grams))


class InceptionNetwork(AbstractFeatureNetwork):
    """The Inception-v3 of FID (2048 features) from torch-fidelity, as torchmetrics uses it."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self._network, self._device = network.to(device), device

    def extract(self, crops: Tensor) -> CropFeatures:
        pooled: Tensor = self._network((crops * 255).round().to(self._device, torch.uint8))
        return CropFeatures(pooled=pooled.cpu())


class VisionNetwork(AbstractFeatureNetwork):
    """A transformers vision model (CLIP, SigLIP, DINOv2, ...); `pooled` is its pooler output."""

    def __init__(self, name: str, device: str, offline: bool) -> None:
        """Raise `ModelError` when there is no such folder or hub id."""
        from transformers import AutoImageProcessor, AutoModel

        def load(local: bool) -> tuple[Any, Any]:
            processor = AutoImageProcessor.from_pretrained(name, local_files_only=local)
            return processor, AutoModel.from_pretrained(name, local_files_only=local)

        self._process, network = checkpoints.fetch(load, [name], offline, NO_MODEL_HINT)
        network = getattr(network, "vision_model", network)  # image-text models have one
        self._network, self._device = network.eval().requires_grad_(False).to(device), device

    def extract(self, crops: Tensor) -> CropFeatures:
        inputs = self._process(images=list((crops * 255).round().to(torch.uint8)), return_tensors="pt")
        pooled: Tensor = self._network(**inputs.to(self._device)).pooler_output
        return CropFeatures(pooled=pooled.flatten(1).cpu())


def gram_matrix(features: Tensor) -> Tensor:
    """Return G = F F^T / (c h w) of each of features (n, c, h, w), (n, c, c) (eval_style_loss.py, `gram_matrix`)."""
    n, c, h, w = features.shape
    flat = features.reshape(n, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


class FeatureNetworks:
    """The networks of one evaluation, each loaded once, with the pooled features of every montage."""

    def __init__(self, gallery: Gallery, settings: Settings) -> None:
        self._gallery, self._settings = gallery, settings
        self._loaded: dict[str, AbstractFeatureNetwork] = {}
        self._pooled: dict[tuple[str, str], Tensor] = {}
        self._block: dict[str, int] = {}  # crops in a block, by network

    def load(self, name: str) -> AbstractFeatureNetwork:
        """Return a network by name: an objective, "vgg19", "inception", or a vision model's id or folder.

        Raises:
            ModelError: its weights are not available.
        """
        if name not in self._loaded:
            self._loaded[name] = _load(name, self._settings.device, self._settings.offline)
        return self._loaded[name]

    @torch.inference_mode()
    def extract_batched(self, name: str, crops: Tensor) -> CropFeatures:
        """Return a network's features of crops (n, 3, H, W) in 0..1, computed in batches."""
        area = crops.shape[-2] * crops.shape[-1]
        batch = min(self._settings.window_batch, max(1, MAX_PIXELS_PER_CALL // area))
        looks = [self.load(name).extract(some) for some in torch.split(crops, batch)]
        return CropFeatures(
            points=tuple(point for look in looks for point in look.points),
            grams=tuple(torch.cat(layers) for layers in zip(*(look.grams for look in looks), strict=True)),
            pooled=torch.cat([look.pooled for look in looks]),
        )

    def feature_blocks(self, name: str, montage: Montage) -> FeatureBlocks:
        """Return a network's features of a montage's crops, in blocks that fit into memory."""
        crops = self._gallery.crops(montage)
        if name not in self._block:
            self._block[name] = max(1, BLOCK_BYTES // self.extract_batched(name, crops.take(0, 1)).bytes)

        def extract(start: int, stop: int) -> CropFeatures:
            features = self.extract_batched(name, crops.take(start, stop))
            if stop - start == len(crops):
                self._pooled[name, montage.name] = features.pooled
            return features

        return FeatureBlocks(extract, len(crops), self._block[name])

    def pool(self, name: str, crops: Crops) -> Tensor:
        """Return the pooled features (n, c) of crops; only one batch of the other features is in memory."""
        batch = self._settings.window_batch
        return torch.cat(
            [
                self.extract_batched(name, crops.take(start, start + batch)).pooled
                for start in range(0, len(crops), batch)
            ]
        )

    def pooled(self, name: str, montage: Montage) -> Tensor:
        """Return the pooled features (n, c) of a montage's crops."""
        if (name, montage.name) not in self._pooled:
            self._pooled[name, montage.name] = self.pool(name, self._gallery.crops(montage))
        return self._pooled[name, montage.name]


def _load(name: str, device: str, offline: bool) -> AbstractFeatureNetwork:
    from torchvision import models as tv

    published: dict[str, tuple[Any, Callable[[], AbstractFeatureNetwork]]] = {
        "lpips": (tv.VGG16_Weights.IMAGENET1K_V1, lambda: _perceptual("lpips", device)),
        "lpips-alex": (tv.AlexNet_Weights.IMAGENET1K_V1, lambda: _perceptual("lpips-alex", device)),
        VGG19: (
            tv.VGG19_Weights.IMAGENET1K_V1,
            lambda: StyleNetwork(tv.vgg19(weights=tv.VGG19_Weights.IMAGENET1K_V1).features, device),
        ),
    }
    if name in published:
        weights, load = published[name]
        _fetch_torchvision(weights.url, offline)
        return load()
    if name.startswith("stlpips"):
        return _perceptual(name, device)
    return _inception(device, offline) if name == INCEPTION else VisionNetwork(name, device, offline)


def _perceptual(name: str, device: str) -> PerceptualNetwork:
    distance = objectives.load(name)
    assert isinstance(distance, objectives.FeatureDistance)
    return PerceptualNetwork(distance, device)


def _fetch_torchvision(url: str, offline: bool) -> None:
    """Download weights into torchvision's cache. Raise `ModelError` if they are missing and cannot be downloaded."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if file.is_file():
        return
    reason = "the network is not to be used"
    if not is_offline(offline):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
            return
        except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; RuntimeError: wrong hash
            reason = str(error)
    raise ModelError(f"needs torchvision's {file.name}, which is not here ({reason}); put it into {file.parent}")


def _inception(device: str, offline: bool) -> InceptionNetwork:
    from torchmetrics.image.fid import NoTrainInceptionV3

    file = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    try:
        if is_offline(offline) and not file.is_file():
            raise FileNotFoundError(f"{file.name} is not in {file.parent}")
        network = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
    except (ImportError, OSError) as error:
        raise ModelError(
            f"the inception network cannot be had ({error}); pip install torch-fidelity and put {INCEPTION_FILE} into "
            f"{file.parent}, or choose other features"
        ) from error
    return InceptionNetwork(network, device)
