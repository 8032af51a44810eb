"""The processes of one training: one, one for each device of this machine, or those that torchrun has started.

All of them read the same clips and take the same steps; rank 0 alone writes into the run's folder.
"""

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed

from stores.checks import StageFailed

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ranks:
    """This process among those of its training.

    Attributes:
        rank, world: its number among all, and how many there are.
        local, on_machine: the same on this machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    on_machine: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0


ALONE = Ranks()


def launched() -> Ranks | None:
    """What torchrun (or `spawn`) says of this process; None where neither has started it."""
    if "LOCAL_WORLD_SIZE" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Ranks(*(int(os.environ[name]) for name in names))


def processes_for(devices: int) -> int:
    """Processes on this machine for `train.devices`.

    Raises:
        ValueError: more GPUs are asked for than there are.
    """
    gpus = torch.cuda.device_count()
    if gpus and devices > gpus:
        raise ValueError(f"train.devices: found {devices}, this machine has {gpus} GPUs")
    return devices or gpus or 1


@contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """All processes of the training connected; they leave together."""
    if ranks.world == 1:
        yield
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(ranks.local)
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


def agreed(value: Any) -> Any:
    """The value of rank 0, in all of them."""
    if not torch.distributed.is_initialized():
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def summed(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all ranks."""
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor)
    return tensor


def spawn(work: Callable[[Say, Ranks], None], *, processes: int, progress: Say) -> None:
    """Runs `work(say, ranks)` in processes of its own and hands on what rank 0 says.

    The first one that fails or dies ends all others.

    Args:
        work: can be pickled.

    Raises:
        ValueError, StageFailed: as raised in one of the processes.
    """
    context = multiprocessing.get_context("spawn")
    port, pipes, started = _free_port(), [], []
    for rank in range(processes):
        here, there = context.Pipe()
        process = context.Process(target=_rank_main, args=(work, there, rank, processes, port))
        process.start()
        there.close()
        pipes.append(here)
        started.append(process)
    try:
        _follow(dict(zip(pipes, started, strict=True)), progress)
    finally:
        for process in started:
            process.kill()  # not terminate: Lightning would answer that by waiting for the others
            process.join()


def _follow(running: dict[Connection, Any], progress: Say) -> None:
    """Hands on lines until all processes have ended."""
    while running:
        for pipe in wait(list(running)):
            assert isinstance(pipe, Connection)
            try:
                kind, content = pipe.recv()
            except EOFError:
                process = running.pop(pipe)
                process.join()
                if process.exitcode:
                    raise StageFailed(f"a process of the training ended with {process.exitcode}") from None
                continue
            if kind == "error":
                raise content
            progress(content)


def _rank_main(
    work: Callable[[Say, Ranks], None], pipe: Connection, rank: int, processes: int, port: int
) -> None:
    variables = {
        **{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes},
        **{"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
    }
    os.environ.update({name: str(value) for name, value in variables.items()})
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()

    def say(line: str) -> None:
        pipe.send(("line", line))

    try:
        work(say, Ranks(rank, processes, rank, processes))
    except (ValueError, StageFailed) as error:
        pipe.send(("error", error))
        raise SystemExit(1) from None


def _end_with_parent(pipe: Connection) -> None:
    """The parent sends nothing: that its end closes says that it is gone, however it died."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
