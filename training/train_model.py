"""The second stage: UNet, text encoder and ControlNets, trained together."""

import csv
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from training.dataset import CELL, NARROW, WINDOW, Batch, Windows
from training.networks import Networks, load_weights, scheduler
from training.parallel import average_gradients, mean_over_processes, same_start

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
FIGURE_WEIGHT = 2.0  # added to the weight of cells that a skeleton covers
TIME_POWER = 1.5  # timesteps are T u^1.5, u uniform: outlines form in the lower half, and layouts need fewer looks


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast to train."""

    minutes: float  # of training in all, over every start and resumption
    start: Path | None = None  # an exported model to train further; None starts from nothing
    alike_share: float = (
        0.5  # of that time ControlNets learn alike all but their embeddings; with `start` they never do
    )
    narrow_share: float = 0.7  # of that time on windows of half the width: landscapes look alike at every x
    batch: int = 5  # windows a process, twice as many narrow ones
    controlled_share: float = 0.75  # of the windows; each costs more than twice one from a prompt alone
    learning_rate: float = 8e-4  # at its peak; cosine to a fiftieth
    warm_up: int = 200  # steps
    most_ema: float = 0.9985  # the average's decay when it has warmed up
    save_every: float = 240.0  # seconds
    log_every: int = 50  # steps
    device: str = "cpu"  # or "cuda", with one process


@dataclass
class _Progress:
    step: int = 0
    samples: int = 0
    seconds: float = 0.0


@dataclass
class _State:
    """What a checkpoint holds."""

    networks: Networks
    ema: Networks
    optimizer: torch.optim.Optimizer
    progress: _Progress


def train_model(rank: int, folder: Path, scenes: Path, tokenizer_folder: Path, plan: Plan) -> None:
    """Train until the plan's minutes are used up; go on from the checkpoint in `folder` if there is one."""
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    workers = dist.get_world_size()
    empty = tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]

    def windows_of() -> Windows:
        return Windows(scenes, empty, rank, workers, plan.controlled_share, plan.device)

    windows = windows_of()
    state = _begin(folder / CHECKPOINT, windows.latents.shape[1], tokenizer, plan)
    networks, progress, parameters = state.networks, state.progress, state.networks.parameters()
    torch.manual_seed(progress.step * workers + rank)
    generator = torch.Generator(plan.device).manual_seed(progress.step * workers + rank)
    alphas = scheduler().alphas_cumprod.to(plan.device)
    shape: tuple[bool, bool] | None = None
    recent: list[Tensor] = []
    last = saved = time.monotonic()
    while (share := mean_over_processes(torch.tensor(progress.seconds / 60 / plan.minutes))) < 1:
        narrow, alike = share < plan.narrow_share, plan.start is None and share < plan.alike_share
        new_shape = shape != (narrow, alike)
        if new_shape and shape:
            windows = windows_of()  # with what was encoded meanwhile
        shape = narrow, alike
        batch = windows.batch(generator, plan.batch * (2 if narrow else 1), NARROW if narrow else WINDOW)
        if new_shape:
            backward = _backward(networks, alphas, alike, batch)
        state.optimizer.param_groups[0]["lr"] = _rate(plan, progress.step, share)
        recent.append(backward(batch))
        average_gradients(parameters)
        update(state.optimizer, parameters)
        progress.step += 1
        progress.samples += len(batch.latents) * workers
        _follow(state.ema, networks, min(plan.most_ema, (1 + progress.step) / (20 + progress.step)))
        now = time.monotonic()
        progress.seconds, last = progress.seconds + now - last, now
        if rank == 0 and progress.step % plan.log_every == 0:
            _log(folder / LOG, progress, float(torch.stack(recent).nanmean()), NARROW if narrow else WINDOW)
            recent = []
        if rank == 0 and now - saved > plan.save_every:
            _save(folder / CHECKPOINT, state)
            saved = now
    if rank == 0:
        _save(folder / CHECKPOINT, state)


def _begin(checkpoint: Path, channels: int, tokenizer: CLIPTokenizer, plan: Plan) -> _State:
    """Return what was saved, or networks to begin with that are the same in every process."""
    networks = Networks.exported(plan.start) if plan.start else Networks.fresh(channels, tokenizer)
    same_start(networks.modules().values())
    for module in networks.modules().values():
        module.to(plan.device)
    if plan.device == "cpu":  # where the fused kernel is slow backwards
        for network in (networks.unet, *networks.controlnets.values()):
            network.set_attn_processor(AttnProcessor())
    else:
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.enable_cudnn_sdp(False)
    optimizer = torch.optim.AdamW(
        networks.parameters(), plan.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    if not checkpoint.exists():
        return _State(networks, deepcopy(networks), optimizer, _Progress())
    saved = load_weights(networks, checkpoint, "model")
    optimizer.load_state_dict(saved["optimizer"])
    ema = deepcopy(networks)
    load_weights(ema, checkpoint, "ema")
    return _State(networks, ema, optimizer, _Progress(*saved["progress"]))


def _backward(networks: Networks, alphas: Tensor, alike: bool, example: Batch) -> Callable[[Batch], Tensor]:
    """Return what leaves the gradients of a batch in the parameters and returns its loss.

    On a GPU its kernels, too small to be started one by one, are recorded once as a CUDA graph: every batch must
    have the shapes of the example.
    """

    def work(batch: Batch) -> Tensor:
        for parameter in networks.parameters():
            parameter.grad = None
        loss = _loss(networks, batch, alphas)
        loss.backward()  # type: ignore[no-untyped-call]
        if alike:
            networks.share_gradients()
        return loss.detach()

    if alphas.device.type == "cpu":
        return work
    read = example.copy()
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):  # kernels are chosen before anything is recorded
            work(read)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = work(read)

    def replay(batch: Batch) -> Tensor:
        read.fill(batch)
        graph.replay()
        return recorded.clone()

    return replay


def update(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Take a step down clipped gradients; one whose gradients are not finite is left out, without a look at them."""
    norm = nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
    optimizer.found_inf = norm.isfinite().logical_not().float()  # type: ignore[attr-defined]  # fused ones know it
    optimizer.step()


def _rate(plan: Plan, step: int, share: float) -> float:
    """Return the learning rate: a linear start, then a cosine down to a fiftieth."""
    cosine = 0.02 + 0.98 * (0.5 + 0.5 * float(np.cos(np.pi * share)))
    return plan.learning_rate * min(1.0, (step + 1) / plan.warm_up) * cosine


def _loss(networks: Networks, batch: Batch, alphas: Tensor) -> Tensor:
    """Return the mean squared error of the predicted v (Salimans and Ho, arXiv 2202.00512)."""
    size, device = len(batch.latents), alphas.device
    order = torch.rand(size, device=device).argsort()
    strata = (order + torch.rand(size, device=device)) / size  # spread evenly
    t = (strata**TIME_POWER * len(alphas)).long().clamp(max=len(alphas) - 1)
    alpha_bar = alphas[t][:, None, None, None]
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noise = torch.randn_like(batch.latents)
    with torch.autocast(device.type, torch.bfloat16):
        predicted = networks.predict(alpha * batch.latents + sigma * noise, t, batch.tokens, batch.maps)
    squared = (predicted.float() - (alpha * noise - sigma * batch.latents)).square()
    return (squared * _weight(batch)).mean()


def _weight(batch: Batch) -> Tensor:
    """Return the weight (b, 1, h, w) of every cell: more where a skeleton asks for a figure, which is a small part."""
    weight = torch.ones_like(batch.latents[:, :1])
    if "pose" in batch.maps:
        skeletons = batch.maps["pose"]
        end = sum(len(maps) for maps in batch.maps.values())  # poses are the last of the controlled windows
        near = F.max_pool2d(skeletons.amax(1, keepdim=True), CELL)
        figures = F.max_pool2d(near, 3, stride=1, padding=1) > 0
        weight[end - len(skeletons) : end] += FIGURE_WEIGHT * figures
    return weight


@torch.no_grad()
def _follow(ema: Networks, networks: Networks, decay: float) -> None:
    """Move the averaged weights towards the trained ones."""
    torch._foreach_lerp_(
        [parameter.data for parameter in ema.parameters()],
        [parameter.data for parameter in networks.parameters()],
        1 - decay,
    )


def _log(path: Path, progress: _Progress, loss: float, width: int) -> None:
    """Append a line to the training log. Raise `FloatingPointError` if the loss is no number any more."""
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {progress.step}; lower --learning-rate, the log is {path}"
        )
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["step", "samples", "minutes", "loss", "width"])
        writer.writerow([progress.step, progress.samples, f"{progress.seconds / 60:.2f}", f"{loss:.5f}", width])


def _save(path: Path, state: _State) -> None:
    """Write a checkpoint; an interrupted write leaves the former one."""
    content = {
        "model": {name: module.state_dict() for name, module in state.networks.modules().items()},
        "ema": {name: module.state_dict() for name, module in state.ema.modules().items()},
        "optimizer": state.optimizer.state_dict(),
        "progress": (state.progress.step, state.progress.samples, state.progress.seconds),
    }
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.rename(path)
