"""What a rule refuses must keep nothing else away: the batch is that of the pool without it."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as draws

from alfamix_core.acquisition import policy, registry, strategies
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.constraints import Apart, AtMost
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.types import Features, Labelled, LinearHead

RANKINGS = {"bald", "dfal", "entropy", "least_confidence", "margin", "power_margin", "random"}
TRACELESS = RANKINGS | {"badge", "cdal", "coreset"}
"""They choose one by one from the whole pool: even what no rule foresees leaves no trace."""


class Unforeseen(AtMost):
    """The same rule, but it only speaks when a sample is offered."""

    def barred(self):
        return None


def scored(name, pool, task, budget, parameters=None):
    strategy = strategies.load(name, parameters)
    state = strategy.prepare(task.labelled, task.head, 0)
    return strategy, state, score_shard(strategy, [pool], state, budget)


def chosen(name, pool, task, budget, rules=lambda scores: (), parameters=None):
    strategy, state, scores = scored(name, pool, task, max(budget, len(pool)), parameters)
    reach = max(budget, len(pool))
    generator = torch.Generator().manual_seed(0)
    result = policy.choose(strategy, scores, state, budget, generator, reach=reach, constraints=rules(scores))
    return [query.position for query in result.queries]


@pytest.mark.parametrize("name", strategies.names())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=draws.data())
def test_with_whole_groups_refused_the_batch_is_that_of_the_pool_without_them(name, make_task, data):
    number = draws.integers
    K = data.draw(number(2, 5), label="classes")
    task = make_task(
        N=data.draw(number(1, 50), label="pool"),
        D=data.draw(number(1, 10), label="dimensions"),
        K=K,
        L=data.draw(number(1, 10), label="labelled"),
        seed=data.draw(number(0, 99), label="seed"),
    )
    n, groups = len(task.pool), data.draw(number(1, 5), label="groups")
    codes_n = torch.randint(groups, (n,), generator=torch.Generator().manual_seed(data.draw(number(0, 99))))
    closed = data.draw(draws.sets(number(0, groups - 1)), label="closed")
    budget = data.draw(number(1, 60), label="budget")
    open_n = torch.tensor([code not in closed for code in codes_n.tolist()])
    without = task.rows(open_n.nonzero()[:, 0])
    has_subset = "subset" in registry.annotations(name)
    parameters = {"subset": data.draw(number(1, 60), label="subset")} if has_subset else None
    expected = chosen(name, without, task, budget, parameters=parameters)
    rule = lambda scores: [AtMost(codes_n, dict.fromkeys(closed, 0), "group")]  # noqa: E731
    assert chosen(name, task.pool, task, budget, rule, parameters) == expected
    if name in TRACELESS:
        late = lambda scores: [Unforeseen(codes_n, dict.fromkeys(closed, 0), "group")]  # noqa: E731
        assert chosen(name, task.pool, task, budget, late) == expected


@pytest.mark.on_real_devices
@pytest.mark.parametrize("name", strategies.names())
@pytest.mark.parametrize("seed", range(3))
def test_rules_that_change_with_the_batch_fill_it_and_hold(name, make_task, seed):
    """At most three of each of ten groups, which is all the budget: every group is full in the end."""
    task = make_task(seed=seed)
    codes_n = torch.arange(200) % 10
    result = chosen(name, task.pool, task, 30, lambda scores: [AtMost(codes_n, dict.fromkeys(range(10), 3), "group")])
    assert codes_n[result].bincount().tolist() == [3] * 10


@pytest.mark.on_real_devices
@pytest.mark.parametrize("name", strategies.names())
def test_queries_that_must_be_apart_are_and_as_many_as_can_be(name, make_task):
    task = make_task()

    def rules(scores):
        return [Apart(task.pool.embeddings_nD, 3.0)]

    result = chosen(name, task.pool, task, 20, rules)
    gaps = torch.cdist(task.pool.embeddings_nD[result], task.pool.embeddings_nD[result]).fill_diagonal_(torch.inf)
    assert gaps.min() >= 3.0
    rest = torch.cdist(task.pool.embeddings_nD, task.pool.embeddings_nD[result]).amin(dim=1)
    assert len(result) == 20 or rest.max() < 3.0


ONE_BY_ONE = [
    *("random", "least_confidence", "margin", "entropy", "power_margin", "bald", "dfal"),
    *("coreset", "cdal", "badge"),
]
"""Rankings, and greedy choices by what was taken alone: the others cluster or cover what is refused later."""


@pytest.mark.on_real_devices
@pytest.mark.parametrize("name", ONE_BY_ONE)
@pytest.mark.parametrize("kind", ["distance", "limit"])
def test_a_refusal_that_follows_from_the_batch_leaves_no_trace_where_samples_are_chosen_one_by_one(
    name, make_task, kind
):
    """The batch with the rule is the batch without a rule of the pool without what the rule refused."""
    for seed in range(3):
        task = make_task(seed=seed)
        codes_n = torch.arange(200) % 20
        rule = Apart(task.pool.embeddings_nD, 5.0)
        if kind == "limit":
            rule = AtMost(codes_n, dict.fromkeys(range(20), 1), "group")
        strategy = strategies.load(name)
        state = strategy.prepare(task.labelled, task.head, seed)
        scores = strategy.score(task.pool, state)
        batch = Batch(15, scores.positions_n, [rule])
        strategy.fill(batch, scores, state, torch.Generator().manual_seed(3))
        assert batch.refused > 0
        left = scores.take(batch.open(scores.positions_n).nonzero()[:, 0])
        again = strategy.select(left, state, len(batch.taken), torch.Generator().manual_seed(3))
        assert again.tolist() == batch.taken


def on_a_line(values, budget, rule):
    """The values that core-set asks for, of a pool on a line with one labelled sample at 0; and what is missing."""
    pool = Features(torch.arange(len(values)), torch.tensor(values)[:, None])
    strategy = strategies.load("coreset")
    state = strategy.prepare(Labelled(torch.zeros(1, 1), torch.zeros(1, 2), torch.zeros(1).long()), None, 0)
    scores = strategy.score(pool, state)
    result = policy.choose(strategy, scores, state, budget, torch.Generator(), constraints=[rule])
    return [values[query.position] for query in result.queries], result.short_by


def test_a_refused_sample_is_no_centre_by_hand():
    """60 is refused. 100 comes first; 60 is 40 away and would be next, and its nearness would put 99.9 before -20.

    Of the pool without 60: 100, then 30 (30 from 0), then -20 (20 from 0), as 99.9 is 0.1 from 100.
    """
    for kind in (AtMost, Unforeseen):
        rule = kind(torch.tensor([0, 0, 1, 0, 0, 1]), {1: 0}, "group")
        assert on_a_line([100.0, 99.9, 60.0, 30.0, -20.0, 60.0], 3, rule) == ([100.0, 30.0, -20.0], 0)


def test_a_group_that_becomes_full_leaves_its_queries_as_centres_by_hand():
    """At most one of 60, 58, -20: after 100 and 58 (42 away), -20 would be next, but its group is full."""
    rule = AtMost(torch.tensor([0, 0, 1, 1, 1]), {1: 1}, "group")
    assert on_a_line([100.0, 99.9, 60.0, 58.0, -20.0], 4, rule) == ([100.0, 58.0, 99.9], 1)


@pytest.mark.parametrize("seed", range(5))
def test_core_set_with_a_limit_by_group_picks_what_a_loop_picks_that_passes_over_the_full_groups(seed):
    random = torch.Generator().manual_seed(seed)
    rows_nD, known_LD = torch.randn(400, 3, generator=random), torch.randn(5, 3, generator=random)
    codes_n = torch.randint(8, (400,), generator=random)
    pool = Features(torch.arange(400), rows_nD)
    labelled = Labelled(known_LD, torch.zeros(5, 2), torch.zeros(5).long())
    strategy = strategies.load("coreset")
    state = strategy.prepare(labelled, None, 0)
    rule = AtMost(codes_n, dict.fromkeys(range(8), 4), "group")
    result = policy.choose(strategy, strategy.score(pool, state), state, 30, torch.Generator(), constraints=[rule])
    twin, counts = [], [0] * 8
    centres = [*known_LD.double()]
    open_n = torch.ones(400, dtype=torch.bool)
    while len(twin) < 30:
        nearest_n = torch.stack([(rows_nD.double() - centre).square().sum(dim=1) for centre in centres]).amin(dim=0)
        best = int(torch.where(open_n, nearest_n, -1.0).argmax())
        open_n[best] = False
        if counts[codes_n[best]] == 4:
            continue
        counts[codes_n[best]] += 1
        twin.append(best)
        centres.append(rows_nD[best].double())
    assert [query.position for query in result.queries] == twin


def sources(seed):
    """60 heaps; 25 of them come from a source that is restricted, the other 35 can be asked."""
    random = torch.Generator().manual_seed(seed)
    centres = 10 * torch.randn(60, 8, generator=random)
    owner_n = torch.randint(60, (1200,), generator=random)
    rows_nD = centres[owner_n] + torch.randn(1200, 8, generator=random)
    return rows_nD, owner_n, (owner_n < 25).long()


@pytest.mark.on_real_devices
@pytest.mark.parametrize("name", ["coreset", "typiclust", "alfamix", "badge"])
def test_a_restricted_source_takes_nothing_from_the_clusters_that_are_covered(name, build):
    """The mean number of heaps that 35 queries reach is the same as if the source had been left out."""
    for seed in range(3):
        rows_nD, owner_n, source_n = sources(seed)
        random = torch.Generator().manual_seed(seed)
        known = torch.randint(1200, (30,), generator=random)
        head = LinearHead(torch.randn(5, 8, generator=random), torch.zeros(5))
        task = build(rows_nD, rows_nD[known], torch.arange(30) % 5, head)
        free_n = source_n == 0
        rule = lambda scores, source_n=source_n: [AtMost(source_n, {1: 0}, "source")]  # noqa: E731
        result = chosen(name, task.pool, task, 35, rule)
        without = chosen(name, task.rows(free_n.nonzero()[:, 0]), task, 35)
        assert owner_n[result].unique().tolist() == owner_n[without].unique().tolist()
