import pytest
import torch

from alfamix_core.acquisition import scoring, strategies
from alfamix_core.acquisition.types import Features, Scores


def test_a_shard_of_no_block_is_refused(make_task):
    task, strategy = make_task(), strategies.load("margin")
    with pytest.raises(ValueError, match="at least one part"):
        scoring.score_shard(strategy, [], strategy.prepare(task.labelled, task.head, 0), 5)


@pytest.mark.on_real_devices
def test_memory_holds_what_is_kept_and_not_the_shard(make_task, monkeypatch):
    """A thousand blocks of 200 rows, each only alive while it is scored; 50 rows are kept."""
    task, strategy = make_task(), strategies.load("margin")
    state = strategy.prepare(task.labelled, task.head, 0)
    merged = []
    merge = Scores.merge
    monkeypatch.setattr(
        Scores, "merge", staticmethod(lambda parts: merged.append(sum(map(len, parts))) or merge(parts))
    )
    pool = task.pool
    blocks = (Features(pool.positions_n + 200 * i, None, pool.logits_nK) for i in range(1000))
    kept = scoring.score_shard(strategy, blocks, state, 50)
    assert len(kept) == 50
    assert max(merged) < 70_000
    assert len(merged) == 4


def test_each_class_keeps_its_own_best(make_task):
    task, strategy = make_task(), strategies.load("margin")
    state = strategy.prepare(task.labelled, task.head, 0)
    blocks = [task.part(i, i + 50) for i in range(0, 200, 50)]
    kept = scoring.score_shard(strategy, blocks, state, 3, each_class=True)
    predicted_n = task.pool.logits_nK.argmax(dim=1)
    assert torch.equal(kept.rows[scoring.PREDICTED], predicted_n[kept.positions_n])
    scores_n = strategy.score(task.pool, state).scores_n
    for k in predicted_n.unique():
        rows = (predicted_n == k).nonzero()[:, 0]
        best = rows[scores_n[rows].sort(descending=True, stable=True).indices[:3]]
        assert set(best.tolist()) <= set(kept.positions_n.tolist())


def test_each_class_needs_logits(make_task):
    task, strategy = make_task(), strategies.load("random")
    block = Features(task.pool.positions_n)
    with pytest.raises(ValueError, match="must hold logits"):
        scoring.score_shard(strategy, [block], strategy.prepare(task.labelled, task.head, 0), 3, each_class=True)
