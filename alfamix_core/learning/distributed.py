"""One training by several processes of one machine, a GPU each, or on the CPU where that is asked for."""

import copy
import json
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor, nn

from alfamix_core.errors import AlfamixError, InputError, StorageError
from alfamix_core.learning.network import Network

PROCESSES = "ALFAMIX_TRAIN_PROCESSES"
_TIMEOUT = timedelta(minutes=30)  # of one exchange; the others wait so long while the first writes a checkpoint
P = ParamSpec("P")


@dataclass(frozen=True)
class Team:
    """The processes of one training, as one of them sees them.

    All call the same methods in the same order, and all get the same answers.

    Attributes:
        rank: of this process, from 0; 0 alone writes.
        size: processes.
    """

    rank: int = 0
    size: int = 1

    def own_part(self, rows_n: Tensor) -> Tensor:
        """Return this process's consecutive part of a vector; the parts differ by one row at most."""
        bounds = [len(rows_n) * rank // self.size for rank in (self.rank, self.rank + 1)]
        return rows_n[bounds[0] : bounds[1]]

    def own_batches(self, rows_n: Tensor, batch_size: int) -> Tensor:
        """Return the rows of every ``size``-th batch, so that the processes' batches together are those of one."""
        starts = range(self.rank * batch_size, len(rows_n), self.size * batch_size)
        parts = [rows_n[start : start + batch_size] for start in starts]
        return torch.cat(parts) if parts else rows_n[:0]

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over the processes, element by element."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def gathered(self, value: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, of one shape and dtype, on the CPU, in order of rank."""
        if self.size == 1:
            return [value.cpu()]
        on_device = value.to(_exchange_device())
        found = [torch.empty_like(on_device) for _ in range(self.size)]
        torch.distributed.all_gather(found, on_device)
        return [each.cpu() for each in found]

    def texts(self, text: str) -> list[str]:
        """Return the texts of all processes, in order of rank."""
        data = torch.tensor(list(text.encode()), dtype=torch.uint8)
        lengths = [int(length) for length in self.gathered(torch.tensor(len(data)))]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(data)] = data
        every = self.gathered(padded)
        return [bytes(each[:length].tolist()).decode() for each, length in zip(every, lengths, strict=True)]

    def agrees(self, first: bool) -> bool:
        """Return what the process of rank 0 says."""
        return bool(self.gathered(torch.tensor(int(first)))[0])


ALONE = Team()


def processes() -> int:
    """Return by how many processes a training is done: one a GPU; on the CPU one.

    ALFAMIX_TRAIN_PROCESSES says another number; on GPUs at most as many as there are.

    Raises:
        InputError: it is no such number.
    """
    gpus = torch.cuda.device_count()
    text = os.environ.get(PROCESSES, "")
    if not text:
        return max(1, gpus)
    if not text.isdecimal() or not 1 <= int(text) <= (gpus or 64):
        raise InputError(f"{PROCESSES} must be a number of processes, 1 to {gpus or 64} here, not {text}")
    return int(text)


def launch(count: int, work: Callable[Concatenate[Team, P], None], *arguments: P.args, **named: P.kwargs) -> None:
    """Do one work by several processes under torch's elastic launcher, and wait for them.

    The death of one ends the others within seconds. No attempt is made again here: that is Kubeflow's.

    Args:
        count: processes.
        work: a function of a module, which gets the team first; it and the arguments are picklable.
        arguments: of the work.
        named: more of them.

    Raises:
        InputError: a process raised it; of several errors, the earliest.
        StorageError: likewise.
        RuntimeError: a process died of something else.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            rdzv_configs={"timeout": 300},
            local_addr="127.0.0.1",
            max_restarts=0,
            start_method="spawn",
            shutdown_timeout=10,
        )
        try:
            elastic_launch(config, _member)(folder, work, arguments, named)
        except ChildFailedError as failed:
            killed = {rank for rank, each in failed.failures.items() if each.exitcode == -signal.SIGKILL}
            stops = _stops(Path(folder))
            for stop in stops:
                if stop.status:
                    raise (InputError if stop.status == InputError.exit_status else StorageError)(stop.line) from None
            first, failure = failed.get_first_failure()
            if killed or not stops:
                rank = min(killed, default=first)
                how = f"ended with status {failure.exitcode}" if not killed else "was killed (SIGKILL): out of memory?"
            else:
                rank, how = stops[0].rank, f"stopped: {stops[0].line}"
            raise RuntimeError(f"process {rank} of the {count} that train {how}") from failed


def parallel(network: Network, device: torch.device) -> tuple[nn.Module, Network]:
    """Return the network as a module that averages its gradients over the processes, and the twin that it runs.

    The twin shares weights and buffers with the network, whose own modules stay as they are. On CUDA its batch
    normalisation takes its statistics over all processes; on the CPU each takes its own.
    """
    from torch.nn.parallel import DistributedDataParallel

    shared = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    twin: Network = copy.deepcopy(network, shared)
    on_gpus = device.type == "cuda"
    if on_gpus:
        nn.SyncBatchNorm.convert_sync_batchnorm(twin)  # type: ignore[no-untyped-call]
    # every process settles the statistics of batch normalisation alike, so none has to send them before each batch
    runner = DistributedDataParallel(twin, device_ids=[device.index] if on_gpus else None, broadcast_buffers=False)
    return runner, twin


def _member(folder: str, work: Callable[..., None], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Be one process of a team."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        with _joined(rank, size) as team:
            work(team, *arguments, **named)
    except AlfamixError as error:
        _leave(folder, rank, error.exit_status, str(error))
        sys.exit(error.exit_status)
    except BaseException as error:
        # the others fail a moment later, of this process's silence
        _leave(folder, rank, 0, f"{type(error).__name__}: {error}")
        raise


@dataclass(frozen=True, order=True)
class _Stop:
    """Why a process stopped; ``status`` is 0 for what is no deliberate error; the earliest is the cause."""

    time: float
    rank: int
    status: int
    line: str


def _leave(folder: str, rank: int, status: int, text: str) -> None:
    stop = _Stop(time.monotonic(), rank, status, " ".join(text.split()))
    Path(folder, f"{rank}.json").write_text(json.dumps(asdict(stop)), encoding="utf-8")


def _stops(folder: Path) -> list[_Stop]:
    """Return what the processes left, the earliest first."""
    return sorted(_Stop(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json"))


@contextmanager
def _joined(rank: int, size: int) -> Iterator[Team]:
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(rank)
    else:
        # the name of a pod need not resolve
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        torch.set_num_threads(max(1, torch.get_num_threads() // size))
    torch.distributed.init_process_group("nccl" if on_gpus else "gloo", timeout=_TIMEOUT)
    yield Team(rank, size)
    # not after an error: the others may be waiting for this process
    torch.distributed.destroy_process_group()


def _exchange_device() -> torch.device:
    if torch.distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
