"""The interface of a model family, and a cache of encoded prompts."""

import abc
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import Tensor, nn

from synccontrol.errors import ConfigError, ModelError
from synccontrol.sampling.batching import Note
from synccontrol.sampling.loop import Predict
from synccontrol.sampling.noise_level import at_least_float32
from synccontrol.spec.settings import Geometry, SamplingConfig


class PromptCache:
    """Cache encoded prompts, and repeat their notes on every hit.

    Args:
        capacity: maximum number of entries; the least recently used one is dropped first. 0 disables the cache.
    """

    def __init__(self, capacity: int = 0) -> None:
        self._capacity = capacity
        self._entries: dict[Hashable, tuple[Any, list[str]]] = {}

    def __call__(self, key: Hashable, compute: Callable[[Note], Any], note: Note) -> Any:
        """Return the value of a key. On a miss, compute it.

        Args:
            key: identifies the value.
            compute: returns the value, never None; receives a function that records notes.
            note: called with every note of the value, also on a hit.
        """
        if not self._capacity:
            return compute(note)
        value, notes = self._entries.pop(key, (None, []))
        if value is None:
            value = compute(notes.append)
        self._entries[key] = value, notes
        if len(self._entries) > self._capacity:
            del self._entries[next(iter(self._entries))]
        for text in notes:
            note(text)
        return value


# An encoded prompt: states (1, tokens, features), and for some families pooled features (1, features)
PromptEmbeds: TypeAlias = tuple[Tensor, ...]

# Window indices -> crops of a control map, (k, 3, H, W) in 0..1, float32 on the CPU.
Crops = Callable[[Sequence[int]], Tensor]

MASKED_VALUE = -1.0  # darker than black (lllyasviel/control_v11p_sd15_inpaint)
OFFLOADING = ("_hf_hook", "_diffusers_hook")  # hooks of accelerate and of diffusers' group offloading

_LOCKS: "WeakKeyDictionary[nn.Module, threading.RLock]" = WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class _OpenSession:
    """The thread that owns the open session, and the device for its duration."""

    thread: int
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class WindowCondition:
    """One window and the conditions it is denoised under."""

    window: int  # index of the window
    prompt: str | PromptEmbeds
    negative_prompt: str | PromptEmbeds  # used with guidance only
    reference: Image.Image | None = None  # RGB reference image of the IP-Adapters
    # (1, channels, h, w), of `AbstractFamily.inpaint_channels`; None: the whole window is inpainted
    inpaint_channels: Tensor | None = None


class AbstractFamily(abc.ABC):
    """The interface between the denoiser and one loaded pipeline. The pipeline's modules are used as they are.

    Every call of a network happens inside `session`.
    """

    pipe: Any  # the diffusers pipeline
    geometry: Geometry
    controls: int  # number of control maps that the ControlNets take
    is_inpainting_model: bool = False  # its networks take a mask and the masked image
    tiny_vae: Any = None  # diffusers' `AutoencoderTiny` for its latents, if one was loaded
    _open_session: "_OpenSession | None" = None  # None outside of sessions
    _prompt_cache = PromptCache()  # encoded prompts

    @property
    def device(self) -> torch.device:
        """Return the device on which the networks run."""
        if self._open_session is not None:
            return self._open_session.device
        weights = (weight for module in self._modules() for weight in module.parameters())
        weight = None if self.offloaded else next(weights, None)
        if weight is not None:  # the same device as `_execution_device`, which takes milliseconds
            return weight.device
        device: torch.device = self.pipe._execution_device  # private in diffusers, without a public name
        return device

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Return all devices that predict windows at the same time, `device` first."""
        return (self.device,)

    @property
    def pipes(self) -> tuple[Any, ...]:
        """Return the diffusers pipelines that hold the weights, one for each of `devices`."""
        return (self.pipe,)

    @property
    @abc.abstractmethod
    def dtype(self) -> torch.dtype:
        """Return the dtype in which the networks run."""

    @property
    def canvas_dtype(self) -> torch.dtype:
        """Return the dtype of canvases, predictions and images: at least float32."""
        return at_least_float32(self.dtype)

    @property
    def offloaded(self) -> bool:
        """Return whether networks may leave the device between two calls."""
        return any(hook in vars(module) for module in self._modules() for hook in OFFLOADING)

    def check_gradient(self, full: bool) -> None:
        """Raise `ModelError` if no gradient can flow back through the networks.

        Weights stored in 8 bits are cast or unpacked for each call, and no gradient passes through that.

        Args:
            full: check the denoising networks as well as the decoder.
        """
        names = ("unet", "transformer", "controlnet") if full else ()
        parts = [self.tiny_vae or self.pipe.vae, *map(self.pipe.components.get, names)]
        weights = [weight for part in parts if isinstance(part, nn.Module) for weight in part.parameters()]
        if any(weight.dtype.itemsize < torch.float16.itemsize for weight in weights):
            raise ModelError(
                "weights are stored in 8 bits, and no gradient flows back through them; "
                + ("use gradient x0, which needs the decoder's only" if full else "leave sync out")
            )

    @contextmanager
    def session(self) -> Iterator[None]:
        """Open a session: the context of one step or preview.

        Inside, this thread has exclusive use of the modules, and no parameter requires a gradient. Threads, montages
        and pipelines that share a module take turns. A nested session of the same thread joins the outer one.
        """
        if self._open_session is not None and self._open_session.thread == threading.get_ident():
            yield
            return
        modules = self._modules()
        with ExitStack() as stack:
            for lock in _locks(modules):
                stack.enter_context(lock)
            self._open_session = _OpenSession(thread=threading.get_ident(), device=self.device)
            stack.callback(setattr, self, "_open_session", None)
            trainable_parameters = [
                parameter for module in modules for parameter in module.parameters() if parameter.requires_grad
            ]
            for parameter in trainable_parameters:
                parameter.requires_grad_(False)
            try:
                with self._prepare_networks():
                    yield
            finally:
                for parameter in trainable_parameters:
                    parameter.requires_grad_(True)

    def _modules(self) -> list[nn.Module]:
        """Return the modules that a session locks."""
        parts = [*self.pipe.components.values(), self.tiny_vae]
        return [part for part in parts if isinstance(part, nn.Module)]

    @abc.abstractmethod
    def _prepare_networks(self) -> AbstractContextManager[None]:
        """Return the context in which the networks are set up for the predictions of `condition`."""

    @abc.abstractmethod
    def condition(
        self, views: Sequence[WindowCondition], crops: Sequence[Crops], sampling: SamplingConfig, steps: int, note: Note
    ) -> Predict:
        """Return the prediction function for one image. All work that does not depend on the step is done here.

        Args:
            views: the windows and their conditions; `Predict` takes indices into this sequence.
            crops: for each control, the crops of its control map; empty without controls.
            sampling: guidance and control settings.
            steps: number of inference steps.
            note: called with a line for the user, e.g. that a prompt is truncated.
        """

    def shift(self) -> float | None:
        """Return mu, the schedule shift by a window's number of tokens; None if the schedule has no such shift."""
        return None

    def masked_value(self, control: int) -> float:
        """Return the value that an inpainting control map holds where the image is inpainted; elsewhere it is in 0..1.

        Args:
            control: index of the control; the value depends on its ControlNet.
        """
        return MASKED_VALUE

    @abc.abstractmethod
    def blank_prompt(self) -> PromptEmbeds:
        """Return prompt embeddings of zeros, in the model's shape."""

    def check_encoded(self, prompt: PromptEmbeds) -> None:
        """Raise `ConfigError` if prompt embeddings do not have this model's shapes."""
        expected = self.blank_prompt()
        if [(*tensor.shape[:1], *tensor.shape[2:]) for tensor in prompt] != [
            (*tensor.shape[:1], *tensor.shape[2:]) for tensor in expected
        ]:
            actual_shapes, expected_shapes = (
                [tuple(tensor.shape) for tensor in tensors] for tensors in (prompt, expected)
            )
            raise ConfigError(
                f"prompt embeddings have the shapes {actual_shapes}; this model needs {expected_shapes}, "
                "with any number of tokens" + (", the pooled ones second" if len(expected) > 1 else "")
            )

    @abc.abstractmethod
    def decode(self, x0: Tensor) -> Tensor:
        """Decode clean latents (n, c, h, w) to images (n, 3, H, W) in about -1..1; differentiable."""

    def decode_preview(self, x0: Tensor) -> Tensor:
        """Decode latents as `decode` does, but with the tiny VAE if one is loaded: faster and less exact.

        The tiny VAE takes latents as the networks see them, without a scaling factor.
        """
        if self.tiny_vae is None:
            return self.decode(x0)
        images: Tensor = self.tiny_vae.decode(x0.to(device=self.device, dtype=self.tiny_vae.dtype)).sample
        return images.to(x0.dtype)

    @abc.abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Encode images (n, 3, H, W) in -1..1 to clean latents (n, c, h, w): the mode of the distribution."""

    def inpaint_channels(self, images: Tensor, new: Tensor) -> Tensor:
        """Return the extra input channels of an inpainting model: the mask and the latents of the masked image.

        Args:
            images: (n, 3, H, W) in -1..1.
            new: (n, 1, H, W); 1 where the image is inpainted, else 0.
        """
        raise NotImplementedError(f"{type(self).__name__} has no networks made for inpainting")

    def cache_prompts(self, prompts: int) -> None:
        """Cache up to `prompts` encoded prompts.

        Only for a caller that has the pipeline to itself and leaves it unchanged.
        """
        self._prompt_cache = PromptCache(prompts)

    def release(self) -> None:
        """Let offloaded networks leave the device after an image."""
        self.pipe.maybe_free_model_hooks()


def _locks(modules: Sequence[nn.Module]) -> "list[threading.RLock]":
    """Return the locks of modules, always in the same order, which prevents deadlocks."""
    with _LOCKS_GUARD:
        return [_LOCKS.setdefault(module, threading.RLock()) for module in sorted(modules, key=id)]


def control_scales(sampling: SamplingConfig, index: int, steps: int, controls: int) -> tuple[float, ...]:
    """Return each control's scale at step `index` of `steps`; 0 outside its start and end.

    As in the diffusers ControlNet pipelines, a step counts when it lies wholly between start and end.
    """
    scales, starts, ends = (
        value if isinstance(value, tuple) else (value,) * controls
        for value in (sampling.control_scale, sampling.control_start, sampling.control_end)
    )
    return tuple(
        0.0 if index / steps < start or (index + 1) / steps > end else scale
        for scale, start, end in zip(scales, starts, ends, strict=True)
    )
