import pytest
import torch

from alfamix_core.acquisition import ranking
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.types import Scores

INF = float("inf")


@pytest.fixture
def scores(device):
    return lambda *values: Scores(torch.arange(len(values), device=device) * 10, torch.tensor(values, device=device))


def chosen(rows, need):
    batch = Batch(need, rows.positions_n)
    ranking.select(rows, None, batch, torch.Generator())
    return batch.taken


def test_order_is_by_score_then_position(scores):
    assert ranking.order(scores(1.0, 3.0, 1.0, 3.0, -INF)).tolist() == [1, 3, 0, 2, 4]


def test_select_returns_positions_best_first(scores):
    assert chosen(scores(1.0, 3.0, 2.0), 2) == [10, 20]


def test_select_of_more_than_there_are_returns_all(scores):
    assert chosen(scores(1.0, 3.0), 5) == [10, 0]


def test_keep_returns_rows_in_position_order(scores):
    kept = ranking.keep(scores(5.0, 1.0, 6.0, 5.0, 5.0), None, 3)
    assert kept.positions_n.tolist() == [0, 20, 30]


@pytest.mark.parametrize("reach", [0, 1, 4, 9])
def test_keeping_parts_then_their_merge_is_keeping_the_whole(device, reach):
    values = torch.randint(4, (60,), generator=torch.Generator().manual_seed(0)).float().to(device)
    whole = Scores(torch.arange(60, device=device), values)
    parts = [ranking.keep(whole.take(torch.arange(i, 60, 3, device=device)), None, reach) for i in (2, 0, 1)]
    merged = ranking.keep(Scores.merge(parts), None, reach)
    assert torch.equal(merged.positions_n, ranking.keep(whole, None, reach).positions_n)


def test_ties_of_many_rows_go_by_position(scores):
    # torch.topk would return them in any order
    assert chosen(scores(*[0.5] * 5000), 3) == [0, 10, 20]


@pytest.mark.parametrize("count", [1, 3, 40, 199, 200])
def test_the_largest_values_are_those_of_a_stable_sort(device, count):
    for seed in range(20):
        values = torch.randint(12, (200,), generator=torch.Generator().manual_seed(seed)).double().to(device)
        expected = values.sort(descending=True, stable=True).indices[:count].sort().values
        assert torch.equal(ranking.largest(values, count), expected)
