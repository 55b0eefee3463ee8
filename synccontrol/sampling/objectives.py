"""Sync objectives: a loss of each window's image against the anchor's image."""

import abc
import contextlib
import importlib.util
import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synccontrol.errors import ModelError
from synccontrol.preprocess import hub
from synccontrol.sampling.noise_level import at_least_float32
from synccontrol.spec.settings import Objective

_LOADING_LOCK = threading.Lock()  # imports and construction change process-wide state

WindowLosses = Callable[[Tensor], Tensor]  # images (n, 3, H, W) in -1..1 -> losses (n,)


class AbstractObjective(abc.ABC):
    """A perceptual distance to an anchor image."""

    @abc.abstractmethod
    def for_anchor(self, anchor: Float[Tensor, "1 3 H W"]) -> WindowLosses:
        """Return a differentiable function from images (n, 3, H, W) in -1..1 to losses (n,) against one anchor.

        Args:
            anchor: the anchor's image (1, 3, H, W) in -1..1; no gradient flows to it.
        """

    def networks(self) -> list[nn.Module]:
        """Return the networks of the objective."""
        return []


class FunctionObjective(AbstractObjective):
    """A user's function: (images (n, 3, H, W), anchor (1, 3, H, W)) -> losses (n,)."""

    def __init__(self, function: Objective) -> None:
        self._function = function

    def for_anchor(self, anchor: Float[Tensor, "1 3 H W"]) -> WindowLosses:
        return lambda images: self._function(images, anchor)


class FeatureDistance(AbstractObjective):
    """LPIPS (arXiv 1801.03924, eq. 1) with the network of the `lpips` or `stlpips_pytorch` package.

    The packages divide features by a norm whose gradient is NaN at all-zero columns; here that gradient is zero. The
    anchor's features are computed once. The distance computes in float32, or in float64 for float64 images.
    """

    def __init__(self, network: Any) -> None:
        self.network = network.eval().requires_grad_(False)
        self._placement = (torch.device("cpu"), torch.float32)
        self.network.to(memory_format=_layout(torch.float32))

    def for_anchor(self, anchor: Float[Tensor, "1 3 H W"]) -> WindowLosses:
        dtype = at_least_float32(anchor.dtype)
        layout = _layout(dtype)
        if self._placement != (anchor.device, dtype):
            self.network.to(device=anchor.device, dtype=dtype, memory_format=layout)
            self._placement = (anchor.device, dtype)
        with torch.no_grad():
            anchor_features = self.features(anchor.to(dtype=dtype, memory_format=layout))

        def losses(images: Tensor) -> Tensor:
            features = self.features(images.to(dtype=dtype, memory_format=layout))
            layers = zip(features, anchor_features, self.network.lins, strict=True)
            return torch.stack([weigh((f - a) ** 2).mean(dim=(1, 2, 3)) for f, a, weigh in layers]).sum(dim=0)

        return losses

    def networks(self) -> list[nn.Module]:
        return [self.network]

    def features(self, images: Float[Tensor, "n 3 H W"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Return the compared features of images (n, 3, H, W): (n, c, h, w) per layer, normalised along c.

        Images are in -1..1, on the network's device and in its dtype.
        """
        layers = self.network.net(self.network.scaling_layer(images))
        return [_unit(layer) for layer in layers]


def _layout(dtype: torch.dtype) -> torch.memory_format:
    # On the CPU, channels-last convolutions are a third faster; there are no normalisation layers that it slows down.
    return torch.channels_last if dtype == torch.float32 else torch.contiguous_format


def _unit(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Normalise features (n, c, h, w) along c; all-zero columns stay zero, with gradient zero."""
    square = (features**2).sum(dim=1, keepdim=True)
    return features / (square.clamp_min(torch.finfo(features.dtype).tiny).sqrt() + 1e-10)


def load(objective: str | Objective, *, offline: bool = False) -> AbstractObjective:
    """Return the objective of a name in `OBJECTIVES`, or of a function.

    Args:
        objective: the name or the function.
        offline: do not download weights.

    Raises:
        ModelError: the network's weights or the package are not available.
    """
    if not isinstance(objective, str):
        return FunctionObjective(objective)
    package, _, net = objective.partition("-")
    with _LOADING_LOCK:
        network = _lpips(net or "vgg", offline) if package == "lpips" else _stlpips(net or "alex")
    return FeatureDistance(network)


def _lpips(net: str, offline: bool) -> nn.Module:
    try:
        if hub.is_offline(offline):
            _require_backbone(net)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # torch.hub prints there
            warnings.simplefilter("ignore")  # torchvision's deprecated arguments, inside lpips
            import lpips

            network: nn.Module = lpips.LPIPS(net=net, verbose=False)
    except ImportError as error:
        raise ModelError(f"objective lpips: {error}; pip install lpips, or --objective stlpips") from error
    except OSError as error:  # urllib's errors are OSErrors
        raise ModelError(
            f"objective lpips needs torchvision's {net} weights, which cannot be downloaded ({error}); "
            f"put them into {torch.hub.get_dir()}/checkpoints, or use --objective stlpips, which carries its own"
        ) from error
    return network


def _require_backbone(net: str) -> None:
    """Raise `FileNotFoundError` when torchvision would download the backbone of LPIPS."""
    from torchvision.models import get_model_weights

    name = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}[net]
    file = Path(get_model_weights(name).IMAGENET1K_V1.url).name
    if not (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file():
        raise FileNotFoundError(f"{file} is not on this machine, and the network may not be used")


def _stlpips(net: str) -> nn.Module:
    try:
        with _placeholders("IPython", "torchsummary"):
            from stlpips_pytorch import stlpips
    except ImportError as error:
        raise ModelError(f"objective stlpips: {error}; pip install stlpips-pytorch, or --objective lpips") from error
    network: nn.Module = stlpips.LPIPS(net=net, variant="shift_tolerant", verbose=False)
    return network


@contextlib.contextmanager
def _placeholders(*names: str) -> Iterator[None]:
    """Provide placeholders for undeclared imports of stlpips_pytorch's debugging helpers."""
    absent_modules = [name for name in names if importlib.util.find_spec(name) is None]
    for name in absent_modules:
        module = ModuleType(name)
        module.__getattr__ = lambda _: None  # type: ignore[method-assign]
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in absent_modules:
            del sys.modules[name]
