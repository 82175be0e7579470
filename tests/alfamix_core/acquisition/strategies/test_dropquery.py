import pytest
import torch

from alfamix_core.acquisition import masks, noise, strategies
from alfamix_core.acquisition.strategies import dropquery
from alfamix_core.acquisition.types import Scores
from alfamix_core.errors import InputError


def state(make_task, **parameters):
    task = make_task()
    return strategies.load("dropquery", parameters).prepare(task.labelled, task.head, 3)


def scores(device, counts, D=4):
    """Rows with so many flips each: 0, 1, 2 … in position order."""
    flips = torch.tensor([float(f) for f, count in enumerate(counts) for _ in range(count)])
    flips = flips[torch.randperm(len(flips), generator=torch.Generator().manual_seed(5))]
    embeddings = torch.randn(len(flips), D, generator=torch.Generator().manual_seed(1))
    return Scores(torch.arange(len(flips), device=device), flips.to(device), {"embeddings": embeddings.to(device)})


def test_a_score_counts_the_passes_that_flip_one_by_one(make_task):
    """The obvious loop, a sample and a pass at a time."""
    task = make_task(N=300, D=16)
    strategy = strategies.load("dropquery")
    prepared = strategy.prepare(task.labelled, task.head, 3)
    result = strategy.score(task.pool, prepared).scores_n.tolist()
    expected = [0] * 300
    for index in range(3):
        mask = masks.kept(noise.fold(3, noise.HEAD_DROPOUT, index), task.pool.positions_n, 16, 0.75)
        for row, embedding in enumerate(task.pool.embeddings_nD):
            dropped = torch.where(mask[row], 4 * embedding, 0.0)
            expected[row] += int(task.head(dropped[None]).argmax()) != int(task.head(embedding[None]).argmax())
    assert result == expected
    assert set(result) == {0, 1, 2, 3}


def test_any_head_will_do(make_task):
    task = make_task()
    strategy = strategies.load("dropquery")
    linear, wrapped = (strategy.prepare(task.labelled, head, 0) for head in (task.head, lambda z: task.head(z)))
    assert torch.equal(strategy.score(task.pool, linear).scores_n, strategy.score(task.pool, wrapped).scores_n)


def test_zero_embeddings_never_flip(build, make_task):
    task = make_task()
    still = build(torch.zeros(50, 8), task.labelled.embeddings_LD.cpu(), task.labelled.labels_L.cpu(), task.head)
    strategy = strategies.load("dropquery")
    prepared = strategy.prepare(still.labelled, still.head, 0)
    assert strategy.score(still.pool, prepared).scores_n.tolist() == [0] * 50


def test_enough_that_most_passes_flip_leave_the_others_out(make_task, generator, device):
    """B = 2: 50 rows with two flips or more are enough, 49 are not."""
    prepared = state(make_task)
    for most, candidates in ((50, 50), (49, 79)):
        result = scores(device, [20, 30, most - 10, 10])
        assert dropquery.summary(result, prepared, 2) == {"candidates": candidates}
        assert len(dropquery.keep(result, prepared, 2)) == candidates
        chosen = strategies.load("dropquery").select(result, prepared, 2, generator())
        assert len(chosen) == 2
        assert (result.scores_n[chosen] >= (2 if most == 50 else 1)).all()


def test_the_threshold_falls_by_one_pass_at_a_time(make_task, device):
    """T = 5, B = 2: three flips or more are 10 rows, too few; two or more are 50, which are enough; one or more 80."""
    prepared = state(make_task, passes=5)
    result = scores(device, [20, 30, 40, 7, 2, 1])
    assert dropquery.summary(result, prepared, 2) == {"candidates": 50}
    assert dropquery.summary(result, prepared, 3) == {"candidates": 80}


def test_too_few_candidates_are_all_asked_and_then_the_smallest_numbers(make_task, generator, device):
    prepared, result = state(make_task), scores(device, [20, 3, 1, 1])
    chosen = strategies.load("dropquery").select(result, prepared, 8, generator())
    assert result.scores_n[chosen].tolist() == [3, 2, 1, 1, 1, 0, 0, 0]
    numbers = noise.uniform(noise.fold(3, noise.FLIPS_FILL), result.positions_n)
    rest = [row for row in numbers.argsort().tolist() if result.scores_n[row] == 0]
    assert chosen[5:].tolist() == rest[:3]


def test_max_candidates_bounds_what_is_kept(make_task, device):
    prepared, result = state(make_task, max_candidates=30), scores(device, [20, 300, 100, 10])
    kept = dropquery.keep(result, prepared, 2)
    assert len(kept) == 30
    assert (kept.scores_n >= 2).all()
    assert int((kept.scores_n == 3).sum()) == 10
    assert len(dropquery.keep(result, prepared, 35)) == 36


def test_passes_and_dropout_are_tunable(make_task):
    task = make_task()
    once = strategies.load("dropquery", {"passes": 1})
    assert set(once.score(task.pool, once.prepare(task.labelled, task.head, 0)).scores_n.tolist()) == {0.0, 1.0}
    sums = []
    for dropout in (0.1, 0.9):
        strategy = strategies.load("dropquery", {"passes": 9, "dropout": dropout})
        sums.append(float(strategy.score(task.pool, strategy.prepare(task.labelled, task.head, 0)).scores_n.sum()))
    assert sums[0] < sums[1]


@pytest.mark.parametrize("parameters", [{"passes": 0}, {"max_candidates": 0}, {"dropout": 0.0}, {"dropout": 1.0}])
def test_a_parameter_out_of_range_is_refused(make_task, parameters):
    with pytest.raises(InputError, match=f'strategy "dropquery": {next(iter(parameters))} must'):
        state(make_task, **parameters)
