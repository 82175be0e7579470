"""What a choice holds in memory beside rows that lie in mapped files."""

import json
from itertools import accumulate

import pytest
import torch

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.rows import Rows
from alfamix_core.acquisition.types import Features, Labelled, LinearHead, Scores


def peak_bytes(call, path):
    """The most that tensors on the CPU have added during a call, at any time."""
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        call()
    profile.export_chrome_trace(str(path))
    events = [event for event in json.loads(path.read_text())["traceEvents"] if event["name"] == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    return max(accumulate(event["args"]["Bytes"] for event in events))


@pytest.mark.parametrize(
    ("name", "N", "D", "K", "share"),
    [
        ("typiclust", 40_000, 256, 2, 2.0),
        ("class_threshold", 30_000, 2, 100, 1.0),
        ("badge", 20_000, 256, 200, 1.0),
        ("coreset", 40_000, 256, 2, 1.0),
    ],
)
def test_a_choice_holds_a_bounded_share_of_its_wide_rows(name, N, D, K, share, tmp_path):
    """Of eight parts; typiclust clusters one matrix of them, the others none."""
    random = torch.Generator().manual_seed(0)
    embeddings, logits = torch.randn(N, D, generator=random), torch.randn(N, K, generator=random)
    strategy = strategies.load(name)
    labelled = Labelled(embeddings[:5], logits[:5], torch.arange(5) % K)
    state = strategy.prepare(labelled, LinearHead(torch.zeros(K, D), torch.zeros(K)), 0)
    scores = strategy.score(Features(torch.arange(N), embeddings, logits), state)
    wide = {column: Rows(rows.chunk(8)) for column, rows in scores.rows.items() if rows.dim() > 1}
    size = sum(column.shape.numel() * column.dtype.itemsize for column in wide.values())
    scores = Scores(scores.positions_n, scores.scores_n, {**scores.rows, **wide})
    peak = peak_bytes(lambda: strategy.select(scores, state, 5, torch.Generator()), tmp_path / "trace.json")
    assert peak < share * size, f"{peak / 2**20:.0f} MiB beside {size / 2**20:.0f} MiB of rows"
    assert (peak > size) == (name == "typiclust")
