"""What text encoders have made of the last few prompts, for pipelines that nobody changes between two images."""

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


class Remembered:
    """Makes what is asked for once, and says each time what was noted when it was made.

    Args:
        most: how many are kept; the one that was not asked for longest goes first. 0: all are made anew.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._kept: dict[Hashable, tuple[Any, list[str]]] = {}

    def __call__(self, key: Hashable, make: Callable[[Note], Any], note: Note) -> Any:
        """Returns what `make` makes for a key. It is given what notes, and never returns None."""
        if not self._most:
            return make(note)
        made, noted = self._kept.pop(key, (None, []))
        if made is None:
            made = make(noted.append)
        self._kept[key] = made, noted
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        for text in noted:
            note(text)
        return made


# what text encoders make of a prompt: states (1, tokens, features), and for some families pooled ones (1, features)
Encoded: TypeAlias = tuple[Tensor, ...]

# indices of windows -> what they see of a control map, (k, 3, H, W) in 0..1, float32 on the CPU
Crops = Callable[[Sequence[int]], Tensor]

HOLE = -1.0  # darker than black (lllyasviel/control_v11p_sd15_inpaint)
OFFLOADING = ("_hf_hook", "_diffusers_hook")  # hooks: accelerate's, and those of diffusers' group offloading

_LOCKS: "WeakKeyDictionary[nn.Module, threading.RLock]" = WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class _Held:
    """Whose session is on, and what does not change in it."""

    thread: int
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class View:
    """What is denoised: a window under one conditioning."""

    window: int  # its index
    prompt: str | Encoded  # text, or an encoded one
    negative_prompt: str | Encoded  # heard with guidance only
    reference: Image.Image | None = None  # RGB, what an IP-Adapter is shown
    beside: Tensor | None = None  # (1, channels, h, w), of `AbstractFamily.beside`; None: all of it is drawn anew


class AbstractFamily(abc.ABC):
    """A model family's view of one loaded pipeline, whose modules it uses as they are and leaves as they were.

    Everything that touches the networks happens inside `session`.
    """

    pipe: Any  # the diffusers pipeline
    geometry: Geometry
    controls: int  # number of control maps that the ControlNets follow
    inpaints: bool = False  # its networks are made for repainting: they are shown what is kept
    tiny_vae: Any = None  # diffusers' `AutoencoderTiny` for its latents, if one was loaded
    _held: "_Held | None" = None  # by the session that is on
    _read_once = Remembered()  # what was made of prompts

    @property
    def device(self) -> torch.device:
        """Returns the device on which the networks run."""
        if self._held is not None:
            return self._held.device
        weights = (weight for module in self._modules() for weight in module.parameters())
        weight = None if self.offloaded else next(weights, None)
        if weight is not None:  # diffusers' way to the same answer takes milliseconds
            return weight.device
        device: torch.device = self.pipe._execution_device  # diffusers keeps it private, and has no other name for it
        return device

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Returns all devices on which windows are predicted at the same time, `device` first."""
        return (self.device,)

    @property
    def pipes(self) -> tuple[Any, ...]:
        """Returns the diffusers pipelines that hold its weights, one for each of `devices`."""
        return (self.pipe,)

    @property
    @abc.abstractmethod
    def dtype(self) -> torch.dtype:
        """Returns the dtype in which the networks run."""

    @property
    def canvas_dtype(self) -> torch.dtype:
        """Returns the dtype of canvases, predictions and pictures: float32 at least."""
        return at_least_float32(self.dtype)

    @property
    def offloaded(self) -> bool:
        """Returns whether networks may leave the device between two calls."""
        return any(hook in vars(module) for module in self._modules() for hook in OFFLOADING)

    def check_gradient(self, full: bool) -> None:
        """Raises `ModelError` where gradients cannot go back: through the decoder, or also through the other networks.

        Weights that are kept in 8 bits, and cast or unpacked for each call, let none through.
        """
        names = ("unet", "transformer", "controlnet") if full else ()
        parts = [self.tiny_vae or self.pipe.vae, *map(self.pipe.components.get, names)]
        weights = [weight for part in parts if isinstance(part, nn.Module) for weight in part.parameters()]
        if any(weight.dtype.itemsize < torch.float16.itemsize for weight in weights):
            raise ModelError(
                "weights are kept in 8 bits, and no gradient goes back through them; "
                + ("use gradient x0, which needs the decoder's only" if full else "leave sync out")
            )

    @contextmanager
    def session(self) -> Iterator[None]:
        """Returns the context of one piece of work: a step, a preview.

        Inside, the modules belong to this thread alone, and no parameter needs a gradient. Pictures that are drawn at
        the same time, by any threads, montages and pipelines that share a module, take turns. A session inside a
        session of the same thread is the same session.
        """
        if self._held is not None and self._held.thread == threading.get_ident():
            yield
            return
        modules = self._modules()
        with ExitStack() as stack:
            for lock in _locks(modules):
                stack.enter_context(lock)
            self._held = _Held(thread=threading.get_ident(), device=self.device)
            stack.callback(setattr, self, "_held", None)
            trainable = [one for module in modules for one in module.parameters() if one.requires_grad]
            for parameter in trainable:
                parameter.requires_grad_(False)
            try:
                with self._prepared():
                    yield
            finally:
                for parameter in trainable:
                    parameter.requires_grad_(True)

    def _modules(self) -> list[nn.Module]:
        """Returns the modules that a session has for itself."""
        parts = [*self.pipe.components.values(), self.tiny_vae]
        return [part for part in parts if isinstance(part, nn.Module)]

    @abc.abstractmethod
    def _prepared(self) -> AbstractContextManager[None]:
        """Returns the context in which the networks are as `condition`'s predictions want them."""

    @abc.abstractmethod
    def condition(
        self, views: Sequence[View], crops: Sequence[Crops], sampling: SamplingConfig, steps: int, note: Note
    ) -> Predict:
        """Returns the prediction function for one picture. All that does not change between steps is computed here.

        Args:
            views: what is denoised; the indices that `Predict` is given are theirs.
            crops: per control, what windows see of its control map; empty for a picture from text only.
            sampling: guidance and control settings.
            steps: how many levels there will be.
            note: called with a line for what the user should know, e.g. that a prompt is cut.
        """

    def shift(self) -> float | None:
        """Returns mu, the shift of a noise schedule that depends on a window's tokens; None: it does not."""
        return None

    def hole(self, control: int) -> float:
        """Returns what a control map for inpainting shows in place of what is drawn anew; elsewhere it is in 0..1.

        Args:
            control: the place of its control among all; its ControlNet is what wants one value or another.
        """
        return HOLE

    @abc.abstractmethod
    def blank_prompt(self) -> Encoded:
        """Returns an encoded prompt that says nothing, as a `View` takes it."""

    def check_encoded(self, prompt: Encoded) -> None:
        """Raises `ConfigError` for an encoded prompt that is none of this model's."""
        wanted = self.blank_prompt()
        if [(*one.shape[:1], *one.shape[2:]) for one in prompt] != [(*one.shape[:1], *one.shape[2:]) for one in wanted]:
            given, fits = ([tuple(one.shape) for one in some] for some in (prompt, wanted))
            raise ConfigError(
                f"prompt embeddings have the shapes {given}; this model needs {fits}, of any number of tokens"
                + (", the pooled ones second" if len(wanted) > 1 else "")
            )

    @abc.abstractmethod
    def decode(self, x0: Tensor) -> Tensor:
        """Returns pictures (n, 3, H, W) in about -1..1 for clean latents (n, c, h, w); differentiable."""

    def glimpse(self, x0: Tensor) -> Tensor:
        """Returns pictures as `decode` does, where it need not be exact: by the small autoencoder, if there is one.

        It takes latents as the networks see them, which its makers call a scaling factor of 1.
        """
        if self.tiny_vae is None:
            return self.decode(x0)
        pictures: Tensor = self.tiny_vae.decode(x0.to(device=self.device, dtype=self.tiny_vae.dtype)).sample
        return pictures.to(x0.dtype)

    @abc.abstractmethod
    def encode(self, pictures: Tensor) -> Tensor:
        """Returns clean latents (n, c, h, w) for pictures (n, 3, H, W) in -1..1: the most likely ones, none drawn."""

    def beside(self, pictures: Tensor, new: Tensor) -> Tensor:
        """Returns what networks that are made for repainting see beside the latents of windows, for `View.beside`.

        Args:
            pictures: (n, 3, H, W) in -1..1.
            new: (n, 1, H, W), 1 where they are drawn anew, else 0.
        """
        raise NotImplementedError(f"{type(self).__name__} has no networks that are made for repainting")

    def remember(self, prompts: int) -> None:
        """Keeps what text encoders make of so many prompts, for who alone has the pipeline, and leaves it as it is."""
        self._read_once = Remembered(prompts)

    def release(self) -> None:
        """Lets offloaded networks leave the device, after a picture."""
        self.pipe.maybe_free_model_hooks()


def _locks(modules: Sequence[nn.Module]) -> "list[threading.RLock]":
    """Returns the locks of modules, always in the same order, so that nobody waits for each other."""
    with _LOCKS_GUARD:
        return [_LOCKS.setdefault(module, threading.RLock()) for module in sorted(modules, key=id)]


def control_scales(sampling: SamplingConfig, index: int, steps: int, controls: int) -> tuple[float, ...]:
    """Returns each control's strength at step `index` of `steps`; 0 outside its start and end.

    The rule is that of the diffusers ControlNet pipelines: a step counts when it lies wholly between start and end.
    """
    scales, starts, ends = (
        value if isinstance(value, tuple) else (value,) * controls
        for value in (sampling.control_scale, sampling.control_start, sampling.control_end)
    )
    return tuple(
        0.0 if index / steps < start or (index + 1) / steps > end else scale
        for scale, start, end in zip(scales, starts, ends, strict=True)
    )
