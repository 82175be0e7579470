import pytest
import torch

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.types import LinearHead

HEAD = LinearHead(torch.eye(2), torch.zeros(2))


@pytest.fixture
def choose(build):
    def choose(pool, labelled, need, seed=0):
        task = build(pool, labelled, torch.zeros(len(labelled), dtype=torch.int64), HEAD)
        strategy = strategies.load("coreset")
        state = strategy.prepare(task.labelled, task.head, 0)
        scores = strategy.score(task.pool, state)
        return scores, strategy.select(scores, state, need, torch.Generator().manual_seed(seed)).tolist()

    return choose


def test_four_samples_by_hand(choose):
    """Labelled (0,0): (3,1) at √10 first, then (0,2) at 2, then (1,0) and (3,0) tie at 1."""
    pool = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [3.0, 1.0]])
    scores, result = choose(pool, torch.zeros(1, 2), 4)
    assert scores.scores_n.tolist() == pytest.approx([1, 2, 3, 10**0.5])
    assert result == [3, 1, 0, 2]


def test_copies_of_labelled_samples_come_last(choose):
    pool = torch.tensor([[5.0, 5.0], [1.0, 0.0], [5.0, 5.0], [2.0, 0.0]])
    assert choose(pool, torch.tensor([[5.0, 5.0]]), 4)[1] == [1, 3, 0, 2]


def test_without_labels_the_seed_decides_the_first(choose):
    pool = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    firsts = {choose(pool, torch.zeros(0, 2), 3, seed)[1][0] for seed in range(20)}
    assert len(firsts) > 5


def test_the_choice_is_that_of_scikit_activeml(choose):
    pool_module = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is not installed")
    random = torch.Generator().manual_seed(0)
    pool, labelled = torch.randn(300, 2, generator=random), torch.randn(5, 2, generator=random)
    rows = torch.cat([labelled, pool]).double().numpy()
    answers = [0.0] * 5 + [float("nan")] * 300
    reference = pool_module.CoreSet(random_state=0).query(rows, answers, batch_size=40)
    assert choose(pool, labelled, 40)[1] == [int(row) - 5 for row in reference]
