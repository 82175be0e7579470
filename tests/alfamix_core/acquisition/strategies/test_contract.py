"""What every strategy promises. A new file in ``strategies/`` is tested without a word here."""

import dataclasses
import inspect
import random
import re
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as draws

from alfamix_core.acquisition import policy, registry, strategies
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.types import Features, Labelled, Scores
from alfamix_core.errors import InputError

pytestmark = pytest.mark.parametrize("name", strategies.names())

NOISY = {"random", "power_margin", "dropquery"}
"""Their scores hold a random number of the position, so equal samples differ."""


FOLLOWS_ITS_SAMPLE = {"bald", "cdal", "class_threshold", "coreset", "dfal", "entropy", "least_confidence", "margin"}
"""Positions only break their ties: they ask for the same samples in whatever order the pool lies."""


def run(name, task, budget, *, shards=1, block=10_000, order=0, reach=None, seed=0):
    """A whole choice: the pool cut into shards and blocks that arrive in any order."""
    strategy, reach = strategies.load(name), budget if reach is None else reach
    state = strategy.prepare(task.labelled, task.head, seed)
    cuts = [round(i * len(task.pool) / shards) for i in range(shards + 1)]
    shuffled = random.Random(order)
    parts = []
    for start, stop in pairwise(cuts):
        blocks = [task.part(i, min(i + block, stop)) for i in range(start, stop, block)] or [task.part(start, stop)]
        shuffled.shuffle(blocks)
        parts.append(score_shard(strategy, blocks, state, reach))
    shuffled.shuffle(parts)
    generator = torch.Generator().manual_seed(seed)
    return policy.choose(strategy, Scores.merge(parts), state, budget, generator, reach=reach)


def positions(choice):
    return [query.position for query in choice.queries]


def scored(name, task, block=None):
    strategy = strategies.load(name)
    state = strategy.prepare(task.labelled, task.head, 0)
    return strategy, state, strategy.score(block or task.pool, state)


def test_the_module_has_the_shape_of_a_strategy(name, make_task):
    strategy = strategies.load(name)
    assert isinstance(strategy.module.COLUMNS, frozenset)
    assert isinstance(strategy.module.NEEDS_LABELS, bool)
    assert isinstance(strategy.module.USES_HEAD, bool)
    assert isinstance(strategy.tunables, registry.tunables(name))
    assert strategies._checked(strategy.module, name) is strategy.module
    task = make_task()
    state = strategy.prepare(task.labelled, task.head, 0)
    assert dataclasses.is_dataclass(state)
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.anything = 1


def test_scores_are_numbers_in_position_order(name, make_task):
    task = make_task()
    _, _, scores = scored(name, task)
    assert torch.equal(scores.positions_n, task.pool.positions_n)
    assert scores.scores_n.dtype == torch.float32
    assert (scores.scores_n < torch.inf).all()
    assert all(len(column) == len(scores) for column in scores.rows.values())


@pytest.mark.on_real_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bits_of_a_score_do_not_depend_on_the_block(name, make_task, dtype):
    task = make_task(N=120, D=13, K=10, L=30, dtype=dtype)
    strategy, state, whole = scored(name, task)
    for size in (1, 7, 64):
        parts = Scores.merge([strategy.score(task.part(i, min(i + size, 120)), state) for i in range(0, 120, size)])
        assert torch.equal(parts.scores_n, whole.scores_n)


def test_bits_of_a_score_do_not_depend_on_the_row_of_the_sample(name, make_task):
    """The same rows at the same positions, but every second one left out."""
    task = make_task()
    strategy, state, whole = scored(name, task)
    half = torch.arange(1, 200, 2, device=task.pool.positions_n.device)
    part = task.rows(half)
    assert torch.equal(strategy.score(part, state).scores_n, whole.scores_n[half])


def test_the_module_says_what_it_needs_costs_keeps_and_is_for(name):
    module = strategies.load(name).module
    for part in (r"\bNeeds ", r"\b[Cc]osts ", r"\bshard", r"\bChoose it\b"):
        assert re.search(part, module.__doc__), f"nothing that matches {part!r}"
    assert name == "random" or re.search(r"Source:|et al\.|\b20\d\d\)", inspect.getsource(module))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=draws.data())
def test_any_pool_asks_the_same_however_it_is_cut(name, make_task, data):
    """Any size, number of classes, labelled part and budget; cut into any shards and blocks, arriving in any order."""
    number = draws.integers
    K = data.draw(number(2, 6), label="classes")
    task = make_task(
        N=data.draw(number(1, 60), label="pool"),
        D=data.draw(number(1, 20), label="dimensions"),
        K=K,
        L=data.draw(number(1, 12), label="labelled"),
        classes=data.draw(number(1, K), label="classes with a label"),
        seed=data.draw(number(0, 99), label="seed"),
        dtype=data.draw(draws.sampled_from([torch.float32, torch.float16]), label="dtype"),
    )
    budget = data.draw(number(1, 70), label="budget")
    whole = run(name, task, budget)
    assert len(set(positions(whole))) == min(budget, len(task.pool))
    shards, block = data.draw(number(1, 9), label="shards"), data.draw(number(1, 30), label="block")
    assert run(name, task, budget, shards=shards, block=block, order=data.draw(number(0, 9), label="order")) == whole


@pytest.mark.on_real_devices
@pytest.mark.parametrize("seed", range(3))
def test_a_permuted_pool_asks_for_the_same_samples(name, make_task, seed):
    if name not in FOLLOWS_ITS_SAMPLE:
        return
    task = make_task(seed=seed)
    moved_n = torch.randperm(200, generator=torch.Generator().manual_seed(seed)).to(task.pool.positions_n.device)
    permuted = dataclasses.replace(task, pool=task.rows(moved_n))
    permuted.pool.positions_n.copy_(task.pool.positions_n)
    before, after = positions(run(name, task, 30)), positions(run(name, permuted, 30))
    assert set(moved_n[after].tolist()) == set(before)


@pytest.mark.on_real_devices
@pytest.mark.parametrize("budget", [1, 12, 60])
def test_shards_blocks_and_order_of_arrival_do_not_show(name, make_task, budget):
    task = make_task()
    expected = run(name, task, budget)
    for shards, block, order in ((1, 17, 1), (2, 200, 2), (8, 200, 3), (8, 9, 4), (200, 1, 5)):
        assert run(name, task, budget, shards=shards, block=block, order=order) == expected


@pytest.mark.on_real_devices
def test_a_longer_reach_does_not_show(name, make_task):
    task = make_task()
    assert run(name, task, 10, shards=4, reach=10) == run(name, task, 10, shards=2, reach=100)


@pytest.mark.parametrize("reach", [0, 1, 25, 500])
def test_keeping_parts_then_their_merge_loses_nothing(name, make_task, reach, generator):
    task = make_task()
    strategy, state, whole = scored(name, task)
    thirds = [torch.arange(i, 200, 3, device=whole.positions_n.device) for i in range(3)]
    a, b, c = (strategy.keep(whole.take(rows), state, reach) for rows in thirds)
    merged = strategy.keep(Scores.merge([strategy.keep(Scores.merge([c, a]), state, reach), b]), state, reach)
    chosen = [strategy.select(scores, state, reach, generator()).tolist() for scores in (whole, merged)]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == min(reach, 200)


@pytest.mark.on_real_devices
@pytest.mark.parametrize("budget", [1, 7, 199, 200, 500])
def test_queries_are_distinct_and_as_many_as_can_be(name, make_task, budget):
    choice = run(name, make_task(), budget)
    assert len(set(positions(choice))) == len(choice.queries) == min(budget, 200)
    assert choice.short_by == max(0, budget - 200)
    assert [query.rank for query in choice.queries] == list(range(len(choice.queries)))


def test_select_returns_positions_and_not_rows(name, make_task, generator):
    task = make_task(N=30)
    pool = dataclasses.replace(task.pool, positions_n=task.pool.positions_n * 7 + 100)
    strategy, state, scores = scored(name, task, pool)
    result = strategy.select(scores, state, 30, generator())
    assert sorted(result.tolist()) == pool.positions_n.tolist()


@pytest.mark.on_real_devices
def test_the_same_seed_asks_the_same_and_no_global_state_is_touched(name, make_task):
    task = make_task()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = run(name, task, 20, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert run(name, task, 20, seed=3) == first


def test_scores_are_not_changed_by_a_choice(name, make_task, generator):
    task = make_task()
    strategy, state, scores = scored(name, task)
    copies = [scores.scores_n.clone(), *(column.clone() for column in scores.rows.values())]
    strategy.select(strategy.keep(scores, state, 50), state, 20, generator())
    assert all(map(torch.equal, copies, [scores.scores_n, *scores.rows.values()]))


def test_equal_samples_are_all_asked_in_the_end(name, make_task, build):
    task = make_task(N=1)
    pool = task.pool.embeddings_nD.repeat(40, 1).cpu()
    same = build(pool, task.labelled.embeddings_LD.cpu(), task.labelled.labels_L.cpu(), task.head)
    _, _, scores = scored(name, same)
    assert name in NOISY or len(scores.scores_n.unique()) == 1
    assert len(set(positions(run(name, same, 15, shards=3)))) == 15
    assert sorted(positions(run(name, same, 40, shards=3))) == list(range(40))


def test_duplicates_are_different_samples(name, make_task, build):
    task = make_task(N=20)
    pool = task.pool.embeddings_nD.repeat(5, 1).cpu()
    doubled = build(pool, task.labelled.embeddings_LD.cpu(), task.labelled.labels_L.cpu(), task.head)
    assert len(set(positions(run(name, doubled, 60, shards=3)))) == 60
    assert run(name, doubled, 60, shards=3) == run(name, doubled, 60)


def test_one_labelled_class_is_enough(name, make_task):
    assert len(set(positions(run(name, make_task(classes=1), 25)))) == 25


def test_an_empty_pool_gives_no_query(name, make_task):
    choice = run(name, make_task(N=0), 5)
    assert choice.queries == []
    assert choice.short_by == 5


def test_without_labels_it_works_or_says_that_it_needs_them(name, make_task):
    task = make_task()
    nothing = Labelled(task.labelled.embeddings_LD[:0], task.labelled.logits_LK[:0], task.labelled.labels_L[:0])
    task = dataclasses.replace(task, labelled=nothing)
    if strategies.load(name).needs_labels:
        with pytest.raises(InputError, match="needs at least one labelled sample"):
            run(name, task, 5)
    else:
        assert len(set(positions(run(name, task, 5)))) == 5


def test_a_value_that_is_not_finite_names_the_position(name, make_task):
    task = make_task(N=50)
    strategy = strategies.load(name)
    if not strategy.columns:
        return
    task.pool.embeddings_nD[17, 2] = torch.nan
    task.pool.logits_nK[17, 1] = torch.nan
    task.pool.mc_logits_nTK[17, 1, 0] = torch.nan
    task.pool.deepfool_n[17] = torch.nan
    with pytest.raises(InputError, match=r"^sample at position 17: [\w ]+ has a value that is not finite$"):
        run(name, task, 5, block=8)


def test_only_the_declared_columns_are_read(name, make_task):
    task = make_task()
    strategy, state, whole = scored(name, task)
    pool = task.pool
    bare = Features(
        pool.positions_n,
        pool.embeddings_nD if "embeddings" in strategy.columns else None,
        pool.logits_nK if "logits" in strategy.columns else None,
        pool.mc_logits_nTK if "mc_logits" in strategy.columns else None,
        pool.deepfool_n if "deepfool" in strategy.columns else None,
    )
    assert torch.equal(strategy.score(bare, state).scores_n, whole.scores_n)
