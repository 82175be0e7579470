import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition import noise, strategies
from alfamix_core.acquisition.strategies.uherding import bandwidth, herd
from alfamix_core.acquisition.types import Features
from alfamix_core.errors import InputError


def kernel(rows_aD, rows_bD, width):
    distances = torch.cdist(rows_aD, rows_bD, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-((distances / width) ** 2))


def by_loop(rows_mD, weights_m, labelled_LD, width, need):
    """Every gain of every row at every pick, from one dense matrix."""
    pairs = kernel(rows_mD, rows_mD, width)
    covered = (
        kernel(rows_mD, labelled_LD, width).amax(dim=1) if len(labelled_LD) else torch.zeros(len(rows_mD)).double()
    )
    picks, gains = [], []
    for _ in range(need):
        gains_m = (pairs - covered).clamp(min=0) @ weights_m
        gains_m[picks] = -1
        picks.append(int(gains_m.argmax()))
        gains.append(gains_m)
        covered = torch.maximum(covered, pairs[picks[-1]])
    return picks, gains


def line(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_four_points_by_hand(device):
    """Pool .5, 2, 2.2, 2.6, labelled 0, width 1: gains .3669, 2.6311, 2.7856, 2.5224."""
    pool = line(0.5, 2, 2.2, 2.6)
    for weights, gains, pick in (
        ([1, 1, 1, 1], [0.3669, 2.6311, 2.7856, 2.5224], 2),
        ([1, 0.2, 0.2, 1], [0.2591, 1.0834, 1.2379, 1.3036], 3),
    ):
        weights = torch.tensor(weights, dtype=torch.float64)
        assert by_loop(pool, weights, line(0), 1, 1)[1][0].tolist() == pytest.approx(gains, abs=5e-5)
        assert herd(pool.to(device), weights.to(device), line(0).to(device), 1, 1).tolist() == [pick]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(0, 4), st.floats(0.05, 3), st.integers(0, 10_000))
def test_lazy_picks_are_those_of_the_dense_loop(m, labelled, width, seed):
    random = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(m, 4, generator=random, dtype=torch.float64), dim=1)
    known = torch.nn.functional.normalize(torch.randn(labelled, 4, generator=random, dtype=torch.float64), dim=1)
    weights = torch.rand(m, generator=random, dtype=torch.float64)
    result = herd(rows, weights, known, width, m).tolist()
    assert sorted(result) == list(range(m))
    # where the best gains differ by rounding alone either may be picked, so follow our picks
    pairs = kernel(rows, rows, width)
    covered = kernel(rows, known, width).amax(dim=1) if labelled else torch.zeros(m, dtype=torch.float64)
    for target, pick in enumerate(result):
        gains = (pairs - covered).clamp(min=0) @ weights
        gains[result[:target]] = -1
        assert float(gains[pick]) >= float(gains.max()) - 1e-9
        covered = torch.maximum(covered, pairs[pick])


def test_many_picks_of_many_rows_are_those_of_the_dense_loop(device):
    random = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(700, 6, generator=random, dtype=torch.float64), dim=1)
    weights = torch.rand(700, generator=random, dtype=torch.float64)
    expected, _ = by_loop(rows, weights, rows[:0], 0.4, 60)
    assert herd(rows.to(device), weights.to(device), rows[:0].to(device), 0.4, 60).tolist() == expected


def test_a_permuted_pool_gives_the_same_samples(make_task):
    random = torch.Generator().manual_seed(0)
    rows, weights = torch.randn(200, 6, generator=random).double(), torch.rand(200, generator=random).double()
    order = torch.randperm(200, generator=random)
    assert (
        order[herd(rows[order], weights[order], rows[:5], 1.0, 20)].tolist()
        == herd(rows, weights, rows[:5], 1.0, 20).tolist()
    )


def test_of_copies_one_is_asked_and_the_others_come_last(device):
    rows = torch.eye(4, dtype=torch.float64, device=device).repeat_interleave(3, dim=0)
    result = herd(rows, torch.ones(12, dtype=torch.float64, device=device), rows[:0], 0.1, 12).tolist()
    assert result[:4] == [0, 3, 6, 9]
    assert sorted(result) == list(range(12))


def test_the_width_is_the_smallest_distance_that_is_not_zero(device):
    assert bandwidth(line(3, 0, 3, 5, 0).to(device)) == pytest.approx(2)
    assert all(bandwidth(rows.to(device)) == 1 for rows in (line(3, 3), line(3), line(3)[:0]))
    many = torch.randn(600, 3, generator=torch.Generator().manual_seed(0)).double()
    assert bandwidth(many.to(device)) == pytest.approx(float(torch.pdist(many).min()))


def test_without_labels_every_sample_weighs_the_same(make_task):
    task, strategy = make_task(L=0), strategies.load("uherding")
    assert strategy.score(task.pool, strategy.prepare(task.labelled, task.head, 0)).scores_n.unique().tolist() == [1.0]


def test_a_score_is_one_minus_the_margin_at_the_temperature(make_task):
    task, strategy = make_task(), strategies.load("uherding", {"temperature": 2.5})
    result = strategy.score(task.pool, strategy.prepare(task.labelled, task.head, 0)).scores_n
    top = (task.pool.logits_nK.double() / 2.5).softmax(dim=1).topk(2, dim=1).values
    torch.testing.assert_close(result, (1 - top[:, 0] + top[:, 1]).float())


def test_uncertainty_can_be_entropy_or_least_confidence_by_hand(make_task):
    """P = (.7, .2, .1): a margin of .5, .801819 nats, and .3 that is not of the top class."""
    task = make_task()
    block = Features(torch.arange(1), torch.zeros(1, 8), torch.tensor([[0.7, 0.2, 0.1]]).log())
    result = {}
    for uncertainty in ("margin", "entropy", "least_confidence"):
        strategy = strategies.load("uherding", {"uncertainty": uncertainty})
        result[uncertainty] = strategy.score(block, strategy.prepare(task.labelled, task.head, 0)).scores_n.item()
    assert result == pytest.approx({"margin": 0.5, "entropy": 0.801819, "least_confidence": 0.3})


def test_the_choice_is_made_from_the_subset_of_the_seed(make_task, generator):
    task, strategy = make_task(), strategies.load("uherding", {"subset": 30})
    state = strategy.prepare(task.labelled, task.head, 4)
    kept = strategy.keep(strategy.score(task.pool, state), state, 10)
    numbers = noise.uniform(noise.fold(4, noise.HERD_SUBSET), task.pool.positions_n)
    assert kept.positions_n.tolist() == sorted(numbers.argsort()[:30].tolist())
    whole = strategy.select(strategy.score(task.pool, state), state, 10, generator()).tolist()
    assert whole == strategy.select(kept, state, 10, generator()).tolist()
    assert len(strategy.select(strategy.score(task.pool, state), state, 50, generator())) == 50


@pytest.mark.parametrize("parameters", [{"temperature": 0.0}, {"temperature": math.inf}, {"subset": 0}])
def test_a_parameter_out_of_range_is_refused(make_task, parameters):
    task = make_task()
    with pytest.raises(InputError, match=f'strategy "uherding": {next(iter(parameters))} must be'):
        strategies.load("uherding", parameters).prepare(task.labelled, task.head, 0)


def test_with_equal_weights_the_picks_are_those_of_scikit_activeml():
    """Its MaxHerding is the coverage alone, with the same kernel; ties, as of two rows far from all, it draws."""
    pool = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is not installed")
    random = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(150, 5, generator=random).double(), dim=1)
    labels = [0.0] * 4 + [math.nan] * 146
    herding = pool.MaxHerding(metric="rbf", metric_dict={"gamma": 1 / 0.6**2}, random_state=0)
    reference = herding.query(rows.numpy(), labels, batch_size=20) - 4
    assert herd(rows[4:], torch.ones(146).double(), rows[:4], 0.6, 20).tolist() == reference.tolist()
