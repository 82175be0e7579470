"""The scores folder: what one shard sends to ``select``.

scores.safetensors   positions (n,) int64 ascending, scores (n,) float32, and the strategy's rows by name
slice.safetensors    the shard's rows of the map, see ``records.features``
sums.safetensors     likewise
stage.json
"""

from pathlib import Path

from safetensors.torch import load_file, save_file

from alfamix_core.acquisition.rows import Column, Rows, whole
from alfamix_core.acquisition.types import Scores

FILE = "scores.safetensors"
_ROW = "row."


def write_scores(folder: Path, scores: Scores) -> None:
    """Write a shard's scores."""
    columns = {"positions": scores.positions_n, "scores": scores.scores_n}
    columns |= {_ROW + name: whole(column) for name, column in scores.rows.items()}
    save_file({name: column.cpu().contiguous() for name, column in columns.items()}, folder / FILE)


def read_scores(folder: Path) -> Scores:
    """Read a shard's scores, on the CPU, memory-mapped; rows of more than a number are read when they are taken."""
    rows: dict[str, Column] = {}
    columns = load_file(folder / FILE)
    for name, column in columns.items():
        if name.startswith(_ROW):
            rows[name.removeprefix(_ROW)] = Rows((column,)) if column.dim() > 1 else column
    return Scores(columns["positions"], columns["scores"], rows)
