"""What every strategy promises on another device: the samples that the CPU asks for, up to ties."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from alfamix_core.acquisition import policy, strategies
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.types import Features, Labelled, LinearHead, Scores

pytestmark = pytest.mark.parametrize("name", strategies.names())

CPU = torch.device("cpu")
BUDGET = 20


def moved(task, device):
    """The task with every tensor on the device: the numbers are the same."""

    def columns(values):
        return {
            field.name: None if value is None else value.to(device)
            for field in dataclasses.fields(values)
            for value in [getattr(values, field.name)]
        }

    return dataclasses.replace(
        task,
        pool=Features(**columns(task.pool)),
        labelled=Labelled(**columns(task.labelled)),
        head=LinearHead(**columns(task.head)),
    )


def disturbed(task, seed):
    """The task with each embedding and logit off by up to four roundings of float32."""
    random = torch.Generator().manual_seed(seed)

    def other(rows):
        return rows * (1 + (torch.rand(rows.shape, generator=random) - 0.5) * 2.0**-21)

    pool = task.pool
    rows = {"embeddings_nD": other(pool.embeddings_nD), "logits_nK": other(pool.logits_nK)}
    return dataclasses.replace(task, pool=dataclasses.replace(pool, **rows))


def chosen(name, task):
    """The scores of the whole pool, and the positions of the batch."""
    strategy = strategies.load(name)
    state = strategy.prepare(task.labelled, task.head, 5)
    scores = score_shard(strategy, [task.pool], state, BUDGET)
    choice = policy.choose(strategy, scores, state, BUDGET, torch.Generator().manual_seed(5))
    return strategy.score(task.pool, state).scores_n.cpu(), [query.position for query in choice.queries]


@pytest.mark.parametrize("seed", range(3))
def test_another_device_asks_for_the_same_samples_up_to_ties(name, make_task, device, seed):
    """A batch may differ only if roundings of its input change the one of the CPU as well, and by no more than that."""
    task = moved(make_task(N=150, D=24, K=5, L=25, seed=seed), CPU)
    expected_n, expected = chosen(name, task)
    scores_n, batch = chosen(name, moved(task, device))
    torch.testing.assert_close(scores_n, expected_n, rtol=1e-5, atol=1e-6)
    if batch != expected:
        others = [chosen(name, disturbed(task, again))[1] for again in range(8)]
        assert any(other != expected for other in others), "the batch differs, and there is no tie"
        fewest = min(len(set(other) & set(expected)) for other in others)
        assert len(set(batch) & set(expected)) >= fewest


def test_shards_on_another_device_do_not_show(name, make_task, device):
    task = make_task(N=150, D=24, K=5, L=25)
    strategy = strategies.load(name)
    state = strategy.prepare(task.labelled, task.head, 5)
    batches = []
    for shards in (1, 4):
        cuts = [150 * i // shards for i in range(shards + 1)]
        parts = [score_shard(strategy, [task.part(start, stop)], state, BUDGET) for start, stop in pairwise(cuts)]
        generator = torch.Generator().manual_seed(5)
        batches.append(policy.choose(strategy, Scores.merge(parts), state, BUDGET, generator).queries)
    assert batches[0] == batches[1]
