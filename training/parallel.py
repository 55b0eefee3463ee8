"""Several processes of one thread each that train one model: faster than one process of several threads."""

import os
import socket
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn


def launch(work: Callable[..., None], workers: int, *args: object) -> None:
    """Run `work(rank, *args)` in `workers` processes of one thread that can average their gradients."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(_start, (work, workers, port, *args), nprocs=workers)  # type: ignore[no-untyped-call]


def _start(rank: int, work: Callable[..., None], workers: int, port: int, *args: object) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=workers)
    work(rank, *args)
    dist.barrier()
    dist.destroy_process_group()


def same_start(modules: Iterable[nn.Module]) -> None:
    """Give every process the weights of the first."""
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.data, 0)


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; a missing one counts as zero."""
    if dist.get_world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def mean_over_processes(value: Tensor) -> float:
    """Return the mean of a scalar over the processes."""
    shared = value.detach().float().clone()
    dist.all_reduce(shared)
    return float(shared) / dist.get_world_size()
