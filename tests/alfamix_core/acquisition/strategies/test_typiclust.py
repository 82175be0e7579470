import pytest
import torch

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.rows import Rows
from alfamix_core.acquisition.strategies.typiclust import typicalities
from alfamix_core.acquisition.types import LinearHead

HEAD = LinearHead(torch.eye(2), torch.zeros(2))

# of half the members, degrees 0 and 90 have the smallest mean distance
EIGHT = (-6, -2.5, -1, 0, 1, 2.5, 6, 10)
NINE = (80, 84, 87.5, 89, 90, 91, 92.5, 96, 100)


def at_angles(*degrees):
    """Rows on the unit circle: clusters of directions, whatever their length."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def chosen(build, pool, labelled, need, **parameters):
    task = build(pool, labelled, torch.zeros(len(labelled), dtype=torch.int64), HEAD)
    strategy = strategies.load("typiclust", parameters)
    state = strategy.prepare(task.labelled, task.head, 0)
    return strategy.select(strategy.score(task.pool, state), state, need, torch.Generator().manual_seed(1)).tolist()


def test_typicality_by_hand(device):
    """0, 1, 2 and 10, two neighbours: mean distances 1.5, 1, 1.5 and 8.5."""
    result = typicalities(torch.tensor([[0.0], [1.0], [2.0], [10.0]], device=device), 2)
    assert (1 / result).tolist() == pytest.approx([1.50001, 1.00001, 1.50001, 8.50001])


@pytest.mark.parametrize(("count", "neighbours"), [(1025, 20), (2500, 20), (2500, 1249)])
def test_typicality_of_many_rows_is_that_of_all_pairs(device, count, neighbours):
    """In several blocks; of all rows, or of some in another order."""
    rows = torch.randn(count, 4, generator=torch.Generator().manual_seed(0)).double().to(device)
    pairs = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    expected = pairs.fill_diagonal_(torch.inf).topk(neighbours, largest=False).values.mean(dim=1)
    torch.testing.assert_close(1 / typicalities(rows, neighbours) - 1e-5, expected)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1)).to(device)
    some = Rows((rows[: count // 3], rows[count // 3 :]), order)
    torch.testing.assert_close(1 / typicalities(some, neighbours) - 1e-5, expected[order])


def test_the_middle_of_the_largest_cluster_comes_first(build):
    """Two clusters without labels, of 8 and 9: the larger first, of each the middle."""
    pool = at_angles(*EIGHT, *NINE)
    assert chosen(build, pool, at_angles(), 2) == [12, 3]


def test_a_cluster_with_a_label_comes_after_those_without(build):
    """Three clusters for one label and two queries; the largest holds the label and is not visited."""
    pool = at_angles(*range(12), *(120 + x for x in EIGHT), *(150 + x for x in NINE))
    assert chosen(build, pool, at_angles(5.5), 2, clustering="best") == [24, 15]


def test_clusters_are_visited_again_in_the_same_order(build):
    pool = at_angles(*EIGHT, *NINE)
    result = chosen(build, pool, at_angles(), 17, max_clusters=2)
    assert sorted(result) == list(range(17))
    assert [position >= 8 for position in result] == [True, False] * 8 + [True]


def test_small_clusters_are_passed_over_unless_all_are(build):
    pool = at_angles(*EIGHT, 90, 91)
    result = chosen(build, pool, at_angles(), 2)
    assert result[0] == 3
    assert all(position < 8 for position in result)
    assert sorted(position >= 8 for position in chosen(build, pool, at_angles(), 2, min_size=50)) == [False, True]


def test_what_no_visited_cluster_holds_fills_up_by_position(build):
    pool = at_angles(*EIGHT, 90, 91)
    assert chosen(build, pool, at_angles(), 10, max_clusters=2)[-2:] == [8, 9]


def test_only_the_direction_of_an_embedding_counts(build):
    pool = at_angles(*EIGHT, *NINE)
    lengths = torch.linspace(0.5, 8, 17)[:, None]
    assert chosen(build, pool * lengths, at_angles(), 2) == [12, 3]


def test_of_a_large_cluster_the_members_nearest_to_its_centre_are_compared(make_task):
    """One cluster: the query is the most typical of the 20 nearest to its centre; with room for all, of all."""
    task = make_task(N=80, L=0)
    rows = torch.nn.functional.normalize(task.pool.embeddings_nD.float(), dim=1)
    inner = (rows - rows.mean(dim=0)).norm(dim=1).argsort()[:20].sort().values
    for limit, members in ((20, inner), (80, torch.arange(80, device=rows.device))):
        strategy = strategies.load("typiclust", {"max_clusters": 1, "max_compared": limit})
        state = strategy.prepare(task.labelled, task.head, 0)
        result = strategy.select(strategy.score(task.pool, state), state, 1, torch.Generator().manual_seed(1))
        distances = torch.cdist(rows[members].double(), rows[members].double())
        neighbours = min(20, len(members) // 2)
        means = distances.sort(dim=1).values[:, 1 : neighbours + 1].mean(dim=1)
        assert result.item() == int(members[means.argmin()])
