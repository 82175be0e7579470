import numpy as np
import pytest
import torch

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.types import Features, Labelled


def chosen(task, need, **parameters):
    strategy = strategies.load("bait", parameters)
    state = strategy.prepare(task.labelled, task.head, 0)
    return strategy.select(strategy.score(task.pool, state), state, need, torch.Generator()).tolist()


def top(logits):
    return logits.double().softmax(dim=1).amax(dim=1).cpu().numpy()


def by_the_published_steps(pool, labelled, p_pool, p_labelled, count, ridge, *, scaled):
    """Two gradients per sample, one for each answer, and the trace by Woodbury's formula, all in numpy's float64.

    scaled: whether labels weigh L/(L + B) and picks B/(L + B), as in the published code.
    """

    def gradients(rows, p):
        halves = np.sqrt(p) * (1 - p), -np.sqrt(1 - p) * p
        return np.stack([half[:, None] * rows for half in halves], axis=1)

    (n, D), L = pool.shape, len(labelled)
    mine, known = gradients(pool, p_pool), gradients(labelled, p_labelled)
    fisher = (np.einsum("nrd,nre->de", mine, mine) + np.einsum("nrd,nre->de", known, known)) / (n + L)
    share = L / (L + count) if scaled else 1
    inverse = np.linalg.inv(ridge * np.eye(D) + np.einsum("nrd,nre->de", known, known) / L * share)
    mine = mine * np.sqrt(count / (L + count)) if scaled else mine
    picks = []
    for _ in range(min(2 * count, n)):
        inner = np.linalg.inv(np.eye(2) + mine @ inverse @ mine.transpose(0, 2, 1))
        traces = np.einsum("nij,nji->n", mine @ inverse @ fisher @ inverse @ mine.transpose(0, 2, 1), inner)
        best = max((row for row in range(n) if row not in picks), key=lambda row: traces[row])
        picks.append(best)
        inverse = inverse - inverse @ mine[best].T @ inner[best] @ mine[best] @ inverse
    while len(picks) > count:
        left = mine[picks]
        inner = np.linalg.inv(-np.eye(2) + left @ inverse @ left.transpose(0, 2, 1))
        traces = np.einsum("nij,nji->n", left @ inverse @ fisher @ inverse @ left.transpose(0, 2, 1), inner)
        worst = int(np.argmax(traces))
        gone = mine[picks[worst]]
        inverse = inverse - inverse @ gone.T @ inner[worst] @ gone @ inverse
        del picks[worst]
    return picks


@pytest.mark.parametrize("scaling", ["plain", "published"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_picks_are_those_of_the_published_steps_with_two_gradients_a_sample(make_task, scaling, normalise, seed):
    task = make_task(N=90, D=7, K=4, L=15, seed=seed)
    rows, labelled = task.pool.embeddings_nD, task.labelled.embeddings_LD
    if normalise:
        rows, labelled = (torch.nn.functional.normalize(x, dim=1) for x in (rows, labelled))
    expected = by_the_published_steps(
        pool=rows.cpu().double().numpy(),
        labelled=labelled.cpu().double().numpy(),
        p_pool=top(task.pool.logits_nK),
        p_labelled=top(task.labelled.logits_LK),
        count=12,
        ridge=0.5,
        scaled=scaling == "published",
    )
    assert chosen(task, 12, ridge=0.5, normalise=normalise, scaling=scaling) == expected


def test_the_score_is_what_one_label_says_by_hand(device):
    """At p = 0.9: 0.9 times 0.1; a tie of two classes: 1/4; p = 1 - 1e-9, where 1 - p is 0 in float32: 1e-9."""
    logits = torch.tensor([[0.9, 0.1], [0.5, 0.5], [1 - 1e-9, 1e-9]], dtype=torch.float64).log().float().to(device)
    strategy = strategies.load("bait")
    nothing = Labelled(torch.zeros(0, 1, device=device), torch.zeros(0, 2, device=device), torch.zeros(0).long())
    state = strategy.prepare(nothing, None, 0)
    pool = Features(torch.arange(3, device=device), torch.ones(3, 1, device=device), logits)
    assert strategy.score(pool, state).scores_n.tolist() == pytest.approx([0.09, 0.25, 1e-9], rel=1e-5)


def test_the_length_of_an_embedding_does_not_matter_unless_told_so(make_task):
    task = make_task()
    scaled = Features(task.pool.positions_n, task.pool.embeddings_nD * 8, task.pool.logits_nK)
    longer = type(task)(scaled, task.labelled, task.head)
    assert chosen(longer, 10) == chosen(task, 10)
    assert chosen(longer, 10, normalise=False) != chosen(task, 10, normalise=False)


def test_a_subset_is_that_of_the_smallest_numbers_and_never_below_the_queries(make_task):
    task = make_task()
    assert len(set(chosen(task, 30, subset=5))) == 30
    few = chosen(task, 5, subset=40)
    strategy = strategies.load("bait", {"subset": 40})
    state = strategy.prepare(task.labelled, task.head, 0)
    kept = strategy.keep(strategy.score(task.pool, state), state, 5)
    assert len(kept) == 40
    assert set(few) <= set(kept.positions_n.tolist())
