import dataclasses

import pytest
import torch

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.types import Features, Labelled


def chosen(pool, labelled, need, name="maxherding", **parameters):
    strategy = strategies.load(name, parameters)
    state = strategy.prepare(labelled, None, 0)
    return strategy.select(strategy.score(pool, state), state, need, torch.Generator()).tolist()


def on_a_circle(device, *degrees):
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1).to(device)


def test_the_densest_place_comes_first_and_then_what_is_left_by_hand(device):
    """Two neighbours of 10 degrees at 0 … 20, two at 180 and 190: the middle of three, then one of the pair."""
    pool = Features(torch.arange(5, device=device), on_a_circle(device, 0.0, 10.0, 20.0, 180.0, 190.0))
    nothing = Labelled(torch.zeros(0, 2, device=device), torch.zeros(0, 2, device=device), torch.zeros(0).long())
    assert chosen(pool, nothing, 2, width=0.5) == [1, 3]
    known = Labelled(on_a_circle(device, 10.0), torch.zeros(1, 2, device=device), torch.zeros(1).long().to(device))
    assert chosen(pool, known, 1, width=0.5) == [3]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_uherding_where_all_are_as_uncertain(make_task, seed):
    task = make_task(seed=seed)
    level = dataclasses.replace(task.pool, logits_nK=torch.zeros_like(task.pool.logits_nK))
    assert chosen(task.pool, task.labelled, 25) == chosen(level, task.labelled, 25, name="uherding")


@pytest.mark.parametrize("labelled", [0, 12])
def test_the_picks_are_those_of_scikit_activeml(make_task, labelled):
    """Its kernel is exp(-gamma d²) of unit rows, its coverage that of the unlabelled ones."""
    pool_module = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is not installed")
    task = make_task(N=150, L=12)
    rows = torch.cat([task.labelled.embeddings_LD[:labelled], task.pool.embeddings_nD]).cpu().double().numpy()
    labels = torch.full((len(rows),), torch.nan)
    labels[:labelled] = 0
    reference = pool_module.MaxHerding(metric_dict={"gamma": 1 / 0.36}, random_state=0)
    expected = reference.query(rows, labels.numpy(), batch_size=15) - labelled
    known = Labelled(
        task.labelled.embeddings_LD[:labelled], task.labelled.logits_LK[:labelled], task.labelled.labels_L[:labelled]
    )
    assert chosen(task.pool, known, 15, width=0.6) == expected.tolist()
