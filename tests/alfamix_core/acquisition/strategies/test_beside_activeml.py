"""Choices beside those of scikit-activeml, where it has the same definition."""

import importlib

import pytest
import torch

from alfamix_core.acquisition import masks, noise, strategies
from alfamix_core.acquisition.points import Gradients, lower
from alfamix_core.acquisition.types import Features, Labelled, LinearHead

pool = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is not installed")


def classifier(head):
    """A classifier that is a linear head."""
    base = importlib.import_module("skactiveml.base").SkactivemlClassifier

    class HeadClassifier(base):
        def fit(self, X, y, sample_weight=None):
            return self

        def predict_proba(self, X):
            return head(torch.from_numpy(X)).softmax(dim=1).numpy()

        def predict(self, X):
            return head(torch.from_numpy(X)).argmax(dim=1).numpy()

    return HeadClassifier(classes=list(range(len(head.bias_K)))).fit(None, None)


def task(n=300, D=6, K=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, D, generator=random, dtype=torch.float64)
    head = LinearHead(torch.randn(K, D, generator=random, dtype=torch.float64), torch.zeros(K, dtype=torch.float64))
    return embeddings, head


def moved(head, device):
    return LinearHead(head.weight_KD.to(device), head.bias_K.to(device))


def test_the_probabilities_of_badge_given_the_same_draws(device):
    """Theirs count the zero gradient as a centre; the authors' code and ours do not."""
    embeddings, head = task()
    chosen, shares = pool.Badge(random_state=0).query(
        embeddings.numpy(), [float("nan")] * 300, classifier(head), fit_clf=False, batch_size=30, return_utilities=True
    )
    points = Gradients(head(embeddings).to(device), embeddings.to(device))
    assert int(points.squares().argmax()) == chosen[0]
    nearest = points.squares()
    for draw in range(1, 30):
        lower(points, nearest, points.take(torch.tensor([int(chosen[draw - 1])], device=device)))
        reference = torch.from_numpy(shares[draw]).nan_to_num()
        torch.testing.assert_close((nearest / nearest.sum()).cpu(), reference, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "method"),
    [("least_confidence", "least_confident"), ("margin", "margin_sampling"), ("entropy", "entropy")],
)
def test_rankings(device, name, method):
    embeddings, head = task()
    reference = pool.UncertaintySampling(method=method, random_state=0).query(
        embeddings.numpy(), [float("nan")] * 300, classifier(head), fit_clf=False, batch_size=40
    )
    strategy = strategies.load(name)
    embeddings, head = embeddings.to(device), moved(head, device)
    none = Labelled(embeddings[:0], head(embeddings[:0]), torch.zeros(0, dtype=torch.int64, device=device))
    state = strategy.prepare(none, head, 0)
    scores = strategy.score(Features(torch.arange(300, device=device), logits_nK=head(embeddings)), state)
    assert strategy.select(scores, state, 40, torch.Generator()).tolist() == [int(row) for row in reference]


def test_typiclust_on_groups_far_apart(device):
    """Six groups of unit vectors of 45 to 95, one with a label: of the five others the middle, the largest first."""
    random = torch.Generator().manual_seed(0)
    sizes = [60, 45, 95, 75, 55, 85]
    parts = [torch.eye(6)[heap] + 0.05 * torch.randn(size, 6, generator=random) for heap, size in enumerate(sizes)]
    rows = torch.nn.functional.normalize(torch.cat(parts), dim=1)
    labels = [0.0] + [float("nan")] * (len(rows) - 1)
    reference = pool.TypiClust(k=20, random_state=0, cluster_algo_dict={"n_init": 10}).query(
        rows.double().numpy(), labels, batch_size=5
    )
    rows, head = rows.to(device), moved(LinearHead(torch.eye(2, 6), torch.zeros(2)), device)
    strategy = strategies.load("typiclust")
    labelled = Labelled(rows[:1], head(rows[:1]), torch.zeros(1, dtype=torch.int64, device=device))
    state = strategy.prepare(labelled, head, 0)
    scores = strategy.score(Features(torch.arange(1, len(rows), device=device), rows[1:]), state)
    assert strategy.select(scores, state, 5, torch.Generator()).tolist() == [int(row) for row in reference]


def test_dropquery_given_the_same_masks(device):
    """Four groups of unit vectors far apart, without a bias; the samples that most passes flip are enough."""
    random = torch.Generator().manual_seed(0)
    parts = [torch.eye(8)[heap] + 0.05 * torch.randn(100, 8, generator=random) for heap in range(4)]
    rows = torch.nn.functional.normalize(torch.cat(parts), dim=1)
    head = LinearHead(torch.randn(5, 8, generator=random), torch.zeros(5))
    keys = [noise.fold(3, noise.HEAD_DROPOUT, index) for index in range(3)]
    dropped = [rows * masks.kept(key, torch.arange(400), 8, 0.75) for key in keys]
    answers = iter([head(seen).argmax(dim=1).numpy() for seen in [rows, *dropped]])
    given = classifier(head)
    given.predict = lambda X: next(answers)
    reference = pool.DropQuery(n_dropout_samples=3, random_state=0, cluster_algo_dict={"n_init": 10}).query(
        rows.double().numpy(), [float("nan")] * 400, given, fit_clf=False, batch_size=4
    )
    assert next(answers, None) is None

    rows, head = rows.to(device), moved(head, device)
    strategy = strategies.load("dropquery")
    none = Labelled(rows[:0], head(rows[:0]), torch.zeros(0, dtype=torch.int64, device=device))
    state = strategy.prepare(none, head, 3)
    scores = strategy.score(Features(torch.arange(400, device=device), rows), state)
    assert 100 <= int((scores.scores_n > 1).sum()) < 400
    assert set(strategy.select(scores, state, 4, torch.Generator()).tolist()) == {int(row) for row in reference}
