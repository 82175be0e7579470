"""One training by several processes on one machine, one per GPU, or on the CPU if asked to."""

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

from alfamix_core.errors import AlfamixError, InputError, StorageError, one_line
from alfamix_core.learning.network import Network

PROCESSES = "ALFAMIX_TRAIN_PROCESSES"
_TIMEOUT = timedelta(minutes=30)  # of one exchange: the others wait while the first writes a checkpoint
P = ParamSpec("P")


@dataclass(frozen=True)
class Team:
    """The processes of one training, as seen by one of them.

    All processes call the same methods in the same order.

    Attributes:
        rank: Rank of this process, from 0; only rank 0 writes.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    def own_part(self, rows_n: Tensor) -> Tensor:
        """Return this process's consecutive part of a vector; the lengths of the parts differ by at most one."""
        bounds = [len(rows_n) * rank // self.size for rank in (self.rank, self.rank + 1)]
        return rows_n[bounds[0] : bounds[1]]

    def own_batches(self, rows_n: Tensor, batch_size: int) -> Tensor:
        """Return the rows of every ``size``-th batch: together, the processes have the batches that one would have."""
        starts = range(self.rank * batch_size, len(rows_n), self.size * batch_size)
        parts = [rows_n[start : start + batch_size] for start in starts]
        return torch.cat(parts) if parts else rows_n[:0]

    def total(self, values: Tensor) -> Tensor:
        """Return the elementwise sum over the processes, which replaces the values in place."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def gathered(self, value: Tensor) -> list[Tensor]:
        """Return the tensors of all processes on the CPU, in order of rank; all have one shape and dtype."""
        if self.size == 1:
            return [value.cpu()]
        on_device = value.to(_exchange_device())
        tensors = [torch.empty_like(on_device) for _ in range(self.size)]
        torch.distributed.all_gather(tensors, on_device)
        return [tensor.cpu() for tensor in tensors]

    def texts(self, text: str) -> list[str]:
        """Return the texts of all processes, in order of rank."""
        data = torch.tensor(list(text.encode()), dtype=torch.uint8)
        lengths = [int(length) for length in self.gathered(torch.tensor(len(data)))]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(data)] = data
        encoded = zip(self.gathered(padded), lengths, strict=True)
        return [bytes(data[:length].tolist()).decode() for data, length in encoded]

    def agrees(self, first: bool) -> bool:
        """Return the value that the process of rank 0 passes."""
        return bool(self.gathered(torch.tensor(int(first)))[0])


ALONE = Team()


def processes() -> int:
    """Return the number of processes of a training: one per GPU, or one on the CPU.

    The environment variable ALFAMIX_TRAIN_PROCESSES overrides it, up to the number of GPUs if there are any.

    Raises:
        InputError: The variable is not a number in that range.
    """
    gpus = torch.cuda.device_count()
    text = os.environ.get(PROCESSES, "")
    if not text:
        return max(1, gpus)
    if not text.isdecimal() or not 1 <= int(text) <= (gpus or 64):
        raise InputError(f"{PROCESSES} must be a number of processes, 1 to {gpus or 64} here, not {text}")
    return int(text)


def launch(count: int, work: Callable[Concatenate[Team, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run a function in several processes under torch's elastic launcher, and wait for them.

    If one process dies, the others end within seconds. Nothing is retried here, because Kubeflow retries the stage.

    Args:
        count: Number of processes.
        work: Module-level function, which gets the team as its first argument; it and its arguments are picklable.
        args: Further positional arguments of the function.
        kwargs: Keyword arguments of the function.

    Raises:
        InputError: A process raised it; if several processes fail, the earliest error counts.
        StorageError: A process raised it, as above.
        RuntimeError: A process died for any other reason.
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
            elastic_launch(config, _member)(folder, work, args, kwargs)
        except ChildFailedError as failed:
            killed = {rank for rank, failure in failed.failures.items() if failure.exitcode == -signal.SIGKILL}
            stops = _stops(Path(folder))
            for stop in stops:
                if stop.status:
                    raise (InputError if stop.status == InputError.exit_status else StorageError)(stop.line) from None
            first, failure = failed.get_first_failure()
            if killed or not stops:
                rank = min(killed, default=first)
                end = f"ended with status {failure.exitcode}" if not killed else "was killed (SIGKILL): out of memory?"
            else:
                rank, end = stops[0].rank, f"stopped: {stops[0].line}"
            raise RuntimeError(f"process {rank} of the {count} that train {end}") from failed


def parallel(network: Network, device: torch.device) -> nn.Module:
    """Return a module that averages the network's gradients over the processes.

    It runs a twin that shares its weights and buffers with the network, whose own modules do not change. The twin's
    batch normalisation takes statistics over all processes on CUDA, and over each process separately on the CPU.
    """
    from torch.nn.parallel import DistributedDataParallel

    shared = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    twin: Network = copy.deepcopy(network, shared)
    on_gpus = device.type == "cuda"
    if on_gpus:
        nn.SyncBatchNorm.convert_sync_batchnorm(twin)  # type: ignore[no-untyped-call]
    # all processes settle the statistics of batch normalisation together, so none broadcasts them before a batch
    return DistributedDataParallel(twin, device_ids=[device.index] if on_gpus else None, broadcast_buffers=False)


def _member(folder: str, work: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run the function as one process of a team."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        with _joined(rank, size) as team:
            work(team, *args, **kwargs)
    except AlfamixError as error:
        _record_stop(folder, rank, error.exit_status, str(error))
        sys.exit(error.exit_status)
    except BaseException as error:
        # the others fail a moment later, because this process no longer answers
        _record_stop(folder, rank, 0, f"{type(error).__name__}: {error}")
        raise


@dataclass(frozen=True, order=True)
class _Stop:
    """The error that stopped a process; ``status`` is 0 if it is not deliberate. The earliest stop is the cause."""

    time: float
    rank: int
    status: int
    line: str


def _record_stop(folder: str, rank: int, status: int, text: str) -> None:
    stop = _Stop(time.monotonic(), rank, status, one_line(text))
    Path(folder, f"{rank}.json").write_text(json.dumps(asdict(stop)), encoding="utf-8")


def _stops(folder: Path) -> list[_Stop]:
    """Return the stops that the processes recorded, earliest first."""
    return sorted(_Stop(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json"))


@contextmanager
def _joined(rank: int, size: int) -> Iterator[Team]:
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(rank)
    else:
        # the name of a pod may not resolve
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        torch.set_num_threads(max(1, torch.get_num_threads() // size))
    torch.distributed.init_process_group("nccl" if on_gpus else "gloo", timeout=_TIMEOUT)
    yield Team(rank, size)
    # skipped after an error, because the other processes may be waiting for this one
    torch.distributed.destroy_process_group()


def _exchange_device() -> torch.device:
    if torch.distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
