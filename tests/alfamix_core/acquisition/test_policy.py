import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition import policy, scoring, strategies
from alfamix_core.acquisition.constraints import Apart, AtMost
from alfamix_core.acquisition.probabilities import NoState
from alfamix_core.acquisition.types import Scores
from alfamix_core.errors import InputError

MARGIN = strategies.load("margin")


def scores_on(device, *values):
    return Scores(torch.arange(len(values), device=device) * 10, torch.tensor(values, device=device))


@pytest.fixture
def scores(device):
    return lambda *values: scores_on(device, *values)


def choose(rows, budget, **options):
    return policy.choose(MARGIN, rows, NoState(), budget, torch.Generator(), **options)


def entry(codes, limit):
    """The same limit for every group."""
    return AtMost(codes, dict.fromkeys(codes.tolist(), limit), "group")


def positions(choice):
    return [query.position for query in choice.queries]


def test_queries_have_rank_position_and_score(scores):
    choice = choose(scores(0.1, 0.9, 0.5), 2)
    assert [(query.rank, query.position, query.score) for query in choice.queries] == [
        (0, 10, pytest.approx(0.9)),
        (1, 20, pytest.approx(0.5)),
    ]
    assert (choice.short_by, choice.reason) == (0, "")


def test_a_budget_above_the_pool_takes_the_pool_and_says_what_is_missing(scores):
    choice = choose(scores(0.1, 0.9), 5)
    assert positions(choice) == [10, 0]
    assert choice.short_by == 3
    assert choice.reason == "the budget is 5, available samples: 2"


def test_a_budget_of_nothing_asks_nothing(scores):
    assert choose(scores(0.1), 0) == policy.Choice([], 0, "")


def test_a_negative_budget_is_refused(scores):
    with pytest.raises(InputError, match="budget must be 0 or more, not -1"):
        choose(scores(0.1), -1)


def test_a_group_that_is_full_gives_its_place_to_the_next(device, scores):
    """Groups a a a b b: at most 2 of a."""
    rows, codes = scores(0.9, 0.8, 0.7, 0.6, 0.5), torch.tensor([1, 1, 1, 2, 2], device=device)
    choice = choose(rows, 4, reach=5, constraints=[entry(codes, 2)])
    assert positions(choice) == [0, 10, 30, 40]
    assert choice.short_by == 0


def test_what_constraints_refuse_is_missing_and_said(device, scores):
    rows, codes = scores(0.9, 0.8, 0.7), torch.tensor([1, 1, 2], device=device)
    choice = choose(rows, 3, constraints=[entry(codes, 1)])
    assert positions(choice) == [0, 20]
    assert choice.short_by == 1
    assert choice.reason == "the budget is 3, available samples: 3; refused (at most 1 of a group): 1"


def test_targets_limit_the_classes_they_name(device, scores):
    rows, predicted = scores(0.9, 0.8, 0.7, 0.6), torch.tensor([0, 0, 1, 0], device=device)
    choice = choose(rows, 3, reach=4, constraints=[AtMost(predicted, {0: 1}, "class")])
    assert positions(choice) == [0, 20]
    assert "at most 1 of a class" in choice.reason


def test_queries_are_apart_from_each_other_and_from_labelled_samples(device, scores):
    """On a line: 0 is too near to the labelled 0.5, 3 and 3.5 are too near to each other."""
    rows, embeddings = scores(0.9, 0.8, 0.7, 0.6), torch.tensor([[0.0], [3.0], [3.5], [5.0]], device=device)
    apart = Apart(embeddings, 1.0, torch.tensor([[0.5]], device=device))
    assert positions(choose(rows, 2, reach=4, constraints=[apart])) == [10, 30]


def test_a_sample_counts_only_if_every_constraint_accepts_it(device, scores):
    """The second is refused for its distance and must not use up its group."""
    rows, embeddings = scores(0.9, 0.8, 0.7), torch.tensor([[0.0], [0.1], [9.0]], device=device)
    rules = [entry(torch.tensor([1, 2, 2], device=device), 1), Apart(embeddings, 1.0)]
    assert positions(choose(rows, 2, reach=3, constraints=rules)) == [0, 20]


def test_groups_without_room_leave_before_the_cut(device, scores):
    """The best two are refused in any case: they must not use up the reach."""
    rows, codes = scores(0.9, 0.8, 0.7, 0.6), torch.tensor([5, 5, 1, 2], device=device)
    assert positions(choose(rows, 2, constraints=[AtMost(codes, {5: 0, 77: 0}, "group")])) == [20, 30]
    short = choose(rows, 3, constraints=[AtMost(codes, {5: 0}, "group")])
    assert short.reason == "the budget is 3, available samples: 4; refused (at most 0 of a group): 2"


def test_indices_of_constraints_are_rows_of_the_scores_that_were_given(device, scores):
    rows, codes = scores(0.1, 0.9, 0.8, 0.7), torch.tensor([9, 1, 1, 2], device=device)
    choice = choose(rows, 2, reach=3, constraints=[AtMost(codes, {9: 0, 1: 1}, "group")])
    assert positions(choice) == [10, 30]


def test_reach_is_twenty_budgets_where_constraints_may_refuse_many():
    assert policy.reach(7) == 7
    assert policy.reach(7, sparse=True) == 140


@pytest.mark.parametrize("name", strategies.names())
def test_constraints_hold_for_every_strategy_and_any_number_of_shards(name, make_task):
    task = make_task()
    strategy = strategies.load(name)
    state = strategy.prepare(task.labelled, task.head, 0)
    predicted_n = task.pool.logits_nK.argmax(dim=1)
    chosen = []
    for shards in (1, 3):
        parts = [task.part(i, j) for i, j in ([(0, 200)] if shards == 1 else [(0, 30), (30, 120), (120, 200)])]
        sent = [scoring.score_shard(strategy, [part], state, 12, each_class=True) for part in parts]
        merged = Scores.merge(sent)
        rule = entry(merged.rows[scoring.PREDICTED], 4)
        generator = torch.Generator().manual_seed(0)
        chosen.append(policy.choose(strategy, merged, state, 12, generator, constraints=[rule]))
    assert chosen[0] == chosen[1]
    asked = torch.tensor(positions(chosen[0]))
    assert len(asked.unique()) == len(asked) == 12
    assert predicted_n.cpu()[asked].bincount().max() <= 4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=30),
    st.integers(0, 40),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_the_loop_equals_one_walk_through_the_whole_ranking(values, budget, limit, groups):
    """For a ranking with enough reach, asking again and again is walking once down the list."""
    rows, codes = scores_on("cpu", *values), torch.arange(len(values)) % groups
    choice = choose(rows, budget, reach=1000, constraints=[entry(codes, limit)])
    walk, counts = [], [0] * groups
    for index in sorted(range(len(values)), key=lambda i: (-values[i], i)):
        if len(walk) < budget and counts[index % groups] < limit:
            counts[index % groups] += 1
            walk.append(index * 10)
    assert positions(choice) == walk
    assert choice.short_by == budget - len(walk)
    assert bool(choice.reason) == (choice.short_by > 0)
