import pytest
import torch

from alfamix_core.acquisition import noise, strategies
from alfamix_core.acquisition.strategies.gcnal import Adjacency, graph_features


def test_the_graph_of_three_by_hand(device):
    """(1,0), (1,0), (.6,.8): sums of similarities 1.6, 1.6 and 1.2."""
    graph = Adjacency.of(torch.tensor([[2.0, 0.0], [1.0, 0.0], [3.0, 4.0]], dtype=torch.float64, device=device))
    assert graph.degrees_n1[:, 0].tolist() == pytest.approx([1.6, 1.6, 1.2])
    full = graph @ torch.eye(3, dtype=torch.float64, device=device)
    expected = [1, 0.625, 0.5, 0.625, 1, 0.5, 0.375, 0.375, 1]
    assert full.flatten().tolist() == pytest.approx(expected)


def test_products_by_factors_are_those_of_the_whole_matrix():
    random = torch.Generator().manual_seed(0)
    rows, values = torch.rand(200, 9, generator=random).double(), torch.randn(200, 4, generator=random).double()
    normal = torch.nn.functional.normalize(rows, dim=1)
    similar = normal @ normal.T - torch.eye(200)
    full = similar / similar.sum(dim=0) + torch.eye(200)
    torch.testing.assert_close(Adjacency.of(rows) @ values, full @ values)


def test_features_with_signs_give_numbers():
    """Sums of similarities near 0 or below break the reference."""
    rows = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    assert graph_features(rows, rows[:3], 0).isfinite().all()
    assert graph_features(torch.zeros(4, 5), rows[:3], 0).isfinite().all()


def test_the_network_learns_to_tell_labelled_from_unlabelled(make_task):
    """The first query is one that looks like nothing labelled: of the heap without labels."""
    random = torch.Generator().manual_seed(0)
    near, far = torch.rand(40, 6, generator=random), torch.rand(40, 6, generator=random)
    near[:, :3] += 4
    far[:, 3:] += 4
    hidden = graph_features(torch.cat([near[10:], far]), near[:10], 1)[:, :128].double()
    distances = torch.cdist(hidden[:-10], hidden[-10:]).amin(dim=1)
    assert distances.argmax() >= 30


def test_the_logit_is_the_last_feature_and_is_low_for_what_looks_unlabelled():
    random = torch.Generator().manual_seed(0)
    near, far = torch.rand(40, 6, generator=random), torch.rand(40, 6, generator=random)
    near[:, :3] += 4
    far[:, 3:] += 4
    result = graph_features(torch.cat([near[10:], far]), near[:10], 1)
    assert result.shape == (80, 129)
    assert result[:30, -1].min() > result[30:70, -1].max()


@pytest.mark.on_real_devices
@pytest.mark.parametrize("features", ["hidden_and_logit", "hidden"])
def test_the_queries_are_those_of_a_loop_on_the_features(make_task, features):
    task = make_task(N=60)
    strategy = strategies.load("gcnal", {"features": features})
    state = strategy.prepare(task.labelled, task.head, 5)
    generator = torch.Generator().manual_seed(0)
    result = strategy.select(strategy.score(task.pool, state), state, 10, generator).tolist()
    seed = noise.draw_seed(torch.Generator().manual_seed(0))
    seen = graph_features(
        task.pool.embeddings_nD, task.labelled.embeddings_LD, noise.fold(seed, noise.GCN_TRAINING) >> 1
    ).double()
    seen = seen if features == "hidden_and_logit" else seen[:, :128]
    centres, picks = seen[60:], []
    for _ in range(10):
        distances = (seen[:60, None] - centres).square().sum(dim=2).amin(dim=1)
        distances[picks] = -1
        picks.append(int(distances.argmax()))
        centres = torch.cat([centres, seen[picks[-1] :][:1]])
    assert result == picks


def test_a_shard_sends_the_rows_of_the_subset(make_task):
    task = make_task()
    strategy = strategies.load("gcnal", {"subset": 30})
    state = strategy.prepare(task.labelled, task.head, 5)
    scores = strategy.score(task.pool, state)
    numbers = noise.uniform(noise.fold(5, noise.GCN_SUBSET), task.pool.positions_n)
    assert strategy.keep(scores, state, 10).positions_n.tolist() == sorted(numbers.argsort()[:30].tolist())
    assert len(strategy.keep(scores, state, 50)) == 50
    result = strategy.select(scores, state, 10, torch.Generator().manual_seed(0)).tolist()
    assert set(result) <= set(numbers.argsort()[:30].tolist())
