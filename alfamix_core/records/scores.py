"""The scores folder: the scores of one shard for ``select``.

scores.safetensors      positions (n,) int64 ascending, scores (n,) float32, and the strategy's rows of one number
NAME-00000.safetensors  its wider rows of that name, in order, in parts of about 32 MiB
slice.safetensors       the shard's rows of the map, see ``records.features``
sums.safetensors        likewise
stage.json
"""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from alfamix_core.acquisition.rows import Column, Rows, whole
from alfamix_core.acquisition.types import Scores

FILE = "scores.safetensors"
_ROW = "row."
_PART = "rows"
_PART_BYTES = 32 * 2**20


def write_scores(folder: Path, scores: Scores) -> None:
    """Write a shard's scores; rows that are not in memory are read a part at a time."""
    columns = {"positions": scores.positions_n, "scores": scores.scores_n}
    for name, column in scores.rows.items():
        if len(column.shape) == 1:
            columns[_ROW + name] = whole(column)
            continue
        height = max(1, _PART_BYTES // max(1, column.shape[1:].numel() * column.dtype.itemsize))
        for number, start in enumerate(range(0, max(1, len(column)), height)):
            part = column[start : start + height]
            save_file({_PART: part.cpu().contiguous()}, folder / f"{name}-{number:05d}.safetensors")
    save_file({name: column.cpu().contiguous() for name, column in columns.items()}, folder / FILE)


def read_scores(folder: Path) -> Scores:
    """Read a shard's scores, on the CPU, memory-mapped; wider rows are read on access."""
    columns = load_file(folder / FILE)
    rows: dict[str, Column] = {
        name.removeprefix(_ROW): column for name, column in columns.items() if name.startswith(_ROW)
    }
    parts: dict[str, list[Tensor]] = {}
    for path in sorted(folder.glob("*-[0-9][0-9][0-9][0-9][0-9].safetensors")):
        parts.setdefault(path.stem.rpartition("-")[0], []).append(load_file(path)[_PART])
    rows |= {name: Rows(tuple(tensors)) for name, tensors in parts.items()}
    return Scores(columns["positions"], columns["scores"], rows)
