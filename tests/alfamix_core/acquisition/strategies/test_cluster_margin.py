import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.acquisition import noise, strategies
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.constraints import AtMost
from alfamix_core.acquisition.strategies import cluster_margin
from alfamix_core.acquisition.strategies.cluster_margin import clusters_by_size, offer_in_turn, similar
from alfamix_core.acquisition.types import Scores


def by_loop(owners, numbers):
    """Queues of members, visited again and again."""
    queues = {}
    for row in sorted(range(len(owners)), key=lambda row: (numbers[row], row)):
        queues.setdefault(owners[row], []).append(row)
    order = sorted(queues, key=lambda cluster: (len(queues[cluster]), owners.index(cluster)))
    taken = []
    while len(taken) < len(owners):
        taken += [queues[cluster].pop(0) for cluster in order if queues[cluster]]
    return taken


def in_turn(owners, numbers, need, *rules):
    batch = Batch(need, torch.arange(len(owners)), rules)
    offer_in_turn(clusters_by_size(owners, numbers), batch)
    return batch.taken


def state(make_task, **parameters):
    task = make_task()
    return strategies.load("cluster_margin", parameters).prepare(task.labelled, task.head, 0)


def groups(sizes):
    """Heaps far apart on a line, scores equal: the clusters are plain."""
    embeddings = torch.cat([torch.linspace(0, 1, size)[:, None] + 100 * heap for heap, size in enumerate(sizes)])
    return Scores(torch.arange(len(embeddings)), torch.full((len(embeddings),), 0.5), {"embeddings": embeddings})


def test_the_smallest_clusters_come_first_by_hand():
    """Sizes 5, 1, 2 and four queries: one of each, then the second of the cluster of two."""
    owners = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2])
    numbers = torch.tensor([0.5, 0.1, 0.3, 0.2, 0.4, 0.9, 0.8, 0.7])
    assert in_turn(owners, numbers, 4) == [5, 7, 1, 6]


def test_where_a_sample_is_refused_the_next_of_its_cluster_has_its_turn_by_hand():
    """The same clusters: row 7 is refused, row 6 has its turn, and the next round has the cluster of five alone."""
    owners = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2])
    numbers = torch.tensor([0.5, 0.1, 0.3, 0.2, 0.4, 0.9, 0.8, 0.7])
    rule = AtMost(torch.tensor([1, 1, 1, 1, 1, 1, 1, 2]), {2: 0}, "group")
    assert in_turn(owners, numbers, 4, rule) == [5, 6, 1, 3]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=40))
def test_turns_are_those_of_the_loop(rows):
    names = list(dict.fromkeys(owner for owner, _ in rows))
    owners, numbers = [names.index(owner) for owner, _ in rows], [float(number) for _, number in rows]
    assert in_turn(torch.tensor(owners), torch.tensor(numbers), len(owners)) == by_loop(owners, numbers)


def test_groups_are_asked_in_turn(make_task, generator):
    """Sizes 15, 5, 10 and 3 clusters: the heap of five first, then ten, then fifteen, and again."""
    scores = groups([15, 5, 10])
    chosen = strategies.load("cluster_margin").select(scores, state(make_task), 6, generator()).tolist()
    heap = [0 if row < 15 else 1 if row < 20 else 2 for row in chosen]
    assert heap == [1, 2, 0, 1, 2, 0]


def test_of_a_cluster_the_smallest_number_of_the_seed_comes_first(make_task, generator):
    scores = groups([10, 10])
    seed = noise.draw_seed(generator())
    numbers = noise.uniform(noise.fold(seed, noise.CLUSTER_MEMBER_ORDER), scores.positions_n)
    chosen = strategies.load("cluster_margin").select(scores, state(make_task), 2, generator()).tolist()
    assert chosen == [int(numbers[:10].argmin()), 10 + int(numbers[10:].argmin())]


def test_only_ten_times_the_batch_is_clustered(make_task, generator):
    scores = groups([30, 30])
    scores.scores_n[:30] = 0.9
    assert len(cluster_margin.keep(scores, state(make_task), 3)) == 30
    assert all(
        row < 30 for row in strategies.load("cluster_margin").select(scores, state(make_task), 3, generator()).tolist()
    )


def test_with_a_small_limit_the_next_margins_fill_up(make_task, generator):
    scores = groups([30])
    scores.scores_n[:] = torch.linspace(1, 0, 30)
    prepared = state(make_task, max_clustered=4)
    assert len(cluster_margin.keep(scores, prepared, 10)) == 10
    chosen = strategies.load("cluster_margin").select(scores, prepared, 10, generator()).tolist()
    assert sorted(chosen[:4]) == [0, 1, 2, 3]
    assert chosen[4:] == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("copies", [False, True])
def test_micro_clusters_find_the_heaps_that_the_rows_themselves_form(device, monkeypatch, copies):
    """300 rows in 12 groups far apart, 40 micro-clusters; as copies there are fewer distinct rows than those."""
    random = torch.Generator().manual_seed(0)
    heap = torch.randint(12, (300,), generator=random)
    rows = 100 * torch.randn(12, 5, generator=random)[heap]
    rows = (rows if copies else rows + torch.randn(300, 5, generator=random)).to(device)
    exact = similar(rows, torch.arange(300, device=device), 12, 3)
    monkeypatch.setattr(cluster_margin, "_EXACT_ROWS", 40)
    assert torch.equal(similar(rows, torch.arange(300, device=device), 12, 3), exact)
    assert len(set(exact.tolist())) == 12


def test_no_matrix_of_all_clustered_pairs_is_made(make_task, generator, monkeypatch):
    largest = []
    distances = cluster_margin.agglomerative.distances
    monkeypatch.setattr(
        cluster_margin.agglomerative, "distances", lambda rows: largest.append(len(rows)) or distances(rows)
    )
    monkeypatch.setattr(cluster_margin, "_EXACT_ROWS", 50)
    scores = groups([3, 40, 60, 97])
    result = strategies.load("cluster_margin").select(scores, state(make_task, cluster_size=50), 20, generator())
    assert largest == [50]
    assert len(set(result.tolist())) == 20
    assert {int(position) for position in result if position < 3} == {0, 1, 2}
