"""When a round starts, what is frozen in it, and how its record moves."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from alfamix_core.errors import InputError, LockedError, ObjectChangedError
from alfamix_core.project import champion, doctor, layout, lock, planning, rounds
from alfamix_core.records.champion import Champion
from alfamix_core.records.round import Counts, Outcome
from alfamix_core.storage import path_of

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def outcome(**fields):
    return Outcome(
        **{"queries": 2, "strategy": "random", "exported_at": datetime(2026, 3, 1, 13, tzinfo=UTC), **fields}
    )


@pytest.fixture
def export(noon):
    """Let a run begin, ask the samples named and export; return the round."""

    def export(made, run_id, holder, *asked, at=noon, force=False):
        record, _ = planning.begin(made.store, holder(run_id), at, force)
        objects = made.questions(record.number, *asked, at=at)
        found = outcome(queries=len(asked))
        exported = rounds.mark_exported(made.store, record.number, run_id, found, at, objects=objects)
        lock.release(made.store, run_id)
        return exported

    return export


def test_the_name_of_a_dead_run_on_the_lock_is_told_and_taken_off_by_the_next_run_even_if_that_is_idle(
    made, holder, noon
):
    """Its process was killed in finish, after the round was exported: nothing waits for the deadline."""
    made.drop("a", "b", "c")
    dead = lock.process("run-1", os.getpid()).model_copy(update={"pid": 2**22 + 1})
    record, _ = planning.begin(made.store, dead, noon)
    rounds.mark_exported(made.store, 1, "run-1", outcome(), noon)
    said = "run run-1 holds the project and is dead or past its deadline; the next run takes it over"
    held, _ = lock.read(made.store)
    assert lock.left_by(held, noon) == said
    assert ("locked", said) in [(finding.kind, finding.what) for finding in doctor.examine(made.store, noon)]
    assert planning.begin(made.store, holder("run-2"), noon)[1].decision == "idle"
    assert lock.read(made.store)[0].holder is None
    assert lock.read(made.store)[0].fence == record.fence
    assert not [finding for finding in doctor.examine(made.store, noon) if finding.kind == "locked"]
    made.drop("b", *(f"x{number}" for number in range(2_000)))
    assert planning.begin(made.store, holder("run-3"), noon)[0].fence == record.fence + 1


def test_the_first_round_is_planned_with_all_it_needs_frozen(made_anywhere, holder, noon):
    made = made_anywhere
    made.drop("a", "b", "c", "d")
    made.label("1", c="cat")
    record, plan = planning.begin(made.store, holder("run-1"), noon)
    assert (plan.decision, plan.text) == ("plan", "the first round")
    assert (record.number, record.state, record.run_id, record.fence, record.revision) == (1, "planned", "run-1", 1, 1)
    assert [item.key for item in record.inputs] == ["drops/a/manifest.jsonl", "labels/1.jsonl"]
    assert record.counts == Counts(samples=3, pool=2, train=1)
    assert record.settings == made.settings
    assert record.key == f"000001-{record.digest[:12]}"
    assert rounds.read(made.store, 1)[0] == record
    assert lock.read(made.store)[0].until == noon + 12 * HOUR


def test_considering_writes_nothing_and_says_the_same_as_beginning(made, noon):
    made.drop("a", "b")
    before = made.files()
    plan = planning.consider(made.store, noon)
    assert (plan.decision, plan.number, plan.shards) == ("plan", 1, 1)
    assert made.files() == before


def test_a_project_without_samples_is_refused(made, noon):
    with pytest.raises(InputError, match="the project has no samples; register some with `alfamix drop`"):
        planning.consider(made.store, noon)


def test_idle_takes_no_number_and_writes_nothing(made, holder, noon, export):
    made.drop("a", "b", "c")
    export(made, "run-1", holder, "b")
    before = made.files()
    record, plan = planning.begin(made.store, holder("run-2"), noon + HOUR)
    assert (record, plan.decision) == (None, "idle")
    assert plan.text == ("since round 1 there are 0 new labels and 0 new samples; a round needs 1 labels or 1 samples")
    assert made.files() == before


def test_enough_labels_or_enough_samples_start_a_round_and_force_does_always(made, holder, noon, export):
    made.configure(round={"min_new_labels": 2, "min_new_samples": 3})
    made.drop("a", "b", "c", "d")
    export(made, "run-1", holder, "b", "c")

    def decision(**fields):
        return planning.consider(made.store, noon + HOUR, **fields).decision

    assert decision() == "idle"
    assert decision(force=True) == "plan"
    made.label("1", b="cat")
    assert decision() == "idle"
    made.label("2", c="dog")
    assert planning.consider(made.store, noon + HOUR).text == "2 new labels since round 1"
    made.store.delete(layout.labels("2"))
    made.drop("more", "e", "f")
    assert decision() == "idle"
    made.drop("and-more", "g")
    assert planning.consider(made.store, noon + HOUR).text == "3 new samples since round 1"


def test_a_round_in_numbers_may_always_start(made, holder, noon, export):
    made.configure(round={"min_new_labels": 0})
    made.drop("a", "b")
    export(made, "run-1", holder)
    assert planning.consider(made.store, noon).decision == "plan"


def test_too_many_open_queries_keep_a_round_from_starting_even_by_force(made, holder, noon, export):
    made.configure(queue={"max_open": 1})
    made.drop("a", "b", "c", "d")
    export(made, "run-1", holder, "b", "c")
    plan = planning.consider(made.store, noon, force=True)
    assert (plan.decision, plan.text) == ("idle", "2 queries are open, more than queue.max_open 1")
    made.label("1", b="cat")
    assert planning.consider(made.store, noon).decision == "plan"
    made.store.delete(layout.labels("1"))
    assert planning.consider(made.store, noon + 30 * DAY, force=True).decision == "plan"


def test_a_second_run_is_refused_while_one_lives_and_writes_nothing(made, holder, noon):
    made.drop("a", "b")
    planning.begin(made.store, holder("run-1"), noon)
    before = made.files()
    with pytest.raises(LockedError, match="locked by run run-1 until"):
        planning.begin(made.store, holder("run-2"), noon + HOUR)
    assert made.files() == before


@pytest.mark.parametrize("ended", ["killed", "failed"])
def test_an_interrupted_round_goes_on_with_what_was_frozen_in_it(made_anywhere, holder, noon, ended):
    made = made_anywhere
    made.drop("a", "b", "c")
    first, _ = planning.begin(made.store, holder("run-1"), noon)
    if ended == "failed":
        rounds.mark_failed(made.store, 1, "run-1", "train: out of luck")
        lock.release(made.store, "run-1")
    made.configure(budget=1, seed=5, strategy={"name": "random"}, classes=["owl", "cat", "dog", "fox"])
    made.drop("z", "y")
    made.label("1", b="cat")
    second, plan = planning.begin(made.store, holder("run-2"), noon + 13 * HOUR)
    assert (plan.decision, plan.number, plan.project) == ("resume", 1, first.settings)
    changed = {"run_id": "run-2", "fence": 2, "revision": first.revision + 1 + (ended == "failed")}
    assert second == first.model_copy(update=changed)
    assert second.key == first.key
    assert rounds.ledger_of(made.store, second).counts() == first.counts
    assert rounds.numbers(made.store) == [1]


def test_a_failed_round_says_why_and_is_planned_again_when_resumed(made, holder, noon):
    made.drop("a", "b")
    planning.begin(made.store, holder("run-1"), noon)
    failed = rounds.mark_failed(made.store, 1, "run-1", "train: out of luck")
    assert (failed.state, failed.reason) == ("failed", "train: out of luck")
    lock.release(made.store, "run-1")
    resumed, _ = planning.begin(made.store, holder("run-2"), noon)
    assert (resumed.state, resumed.reason) == ("planned", "")


def test_only_the_run_that_has_the_round_may_call_it_failed(made, holder, noon):
    made.drop("a", "b")
    planned, _ = planning.begin(made.store, holder("run-1"), noon)
    assert rounds.mark_failed(made.store, 1, "run-0", "late news") == planned
    assert rounds.read(made.store, 1)[0] == planned


def test_exporting_twice_is_exporting_once(made, holder, noon):
    made.drop("a", "b")
    planning.begin(made.store, holder("run-1"), noon)
    first = rounds.mark_exported(made.store, 1, "run-1", outcome(), noon)
    again = rounds.mark_exported(made.store, 1, "run-1", outcome(queries=1), noon + HOUR)
    assert first == again == rounds.read(made.store, 1)[0]
    assert (first.state, first.outcome.queries, first.revision) == ("exported", 2, 2)


def test_a_late_writer_can_no_longer_export(made, holder, noon):
    made.drop("a", "b")
    planning.begin(made.store, holder("run-1"), noon)
    planning.begin(made.store, holder("run-2"), noon + 12 * HOUR)
    before = made.files()
    with pytest.raises(LockedError, match="run run-1 no longer holds the project: run run-2 took it over"):
        rounds.mark_exported(made.store, 1, "run-1", outcome(), noon + 12 * HOUR)
    assert made.files() == before


def test_a_writer_that_read_before_the_take_over_cannot_swap_after_it(made_anywhere, holder, noon):
    """The fence and the revision of the resumed round make its bytes others, so the old tag no longer fits."""
    made = made_anywhere
    made.drop("a", "b")
    planned, _ = planning.begin(made.store, holder("run-1"), noon)
    _, tag = rounds.read(made.store, 1)
    planning.begin(made.store, holder("run-2"), noon + 12 * HOUR)
    with pytest.raises(ObjectChangedError):
        made.store.swap(layout.round_file(1), planned.document(), tag)


def test_whatever_takes_the_lock_over_signs_the_unfinished_round_so_that_a_late_swap_fails(made_anywhere, holder, noon):
    """The late run was stopped between its look at the lock and its swap; who came was no run, and has gone again."""
    made = made_anywhere
    made.drop("a", "b")
    planned, _ = rounds.begin(made.store, holder("run-1"), noon)
    _, tag = rounds.read(made.store, 1)
    with rounds.holding(made.store, "clean", noon + 12 * HOUR) as held:
        signed, _ = rounds.read(made.store, 1)
    assert signed == planned.model_copy(update={"fence": held.fence, "revision": 2})
    exported = planned.model_copy(update={"state": "exported", "outcome": outcome()})
    with pytest.raises(ObjectChangedError):
        made.store.swap(layout.round_file(1), exported.document(), tag)
    assert lock.read(made.store)[0].holder is None
    resumed, _ = rounds.begin(made.store, holder("run-2"), noon + 12 * HOUR)
    assert resumed.key == planned.key


def test_unlocking_signs_the_unfinished_round_too(made, holder, noon):
    made.drop("a", "b")
    planned, _ = rounds.begin(made.store, holder("run-1"), noon)
    assert rounds.unlock(made.store, noon).holder.run_id == "run-1"
    assert rounds.read(made.store, 1)[0] == planned.model_copy(update={"fence": 2, "revision": 2})
    assert rounds.unlock(made.store, noon) is None


def test_short_work_is_refused_while_a_run_lives_and_lets_go_even_if_it_fails(made, holder, noon):
    made.drop("a", "b")
    rounds.begin(made.store, holder("run-1"), noon)
    before = made.files()
    with (
        pytest.raises(LockedError, match=r"^the project is locked by run run-1 until"),
        rounds.holding(made.store, "promote", noon),
    ):
        raise AssertionError("not reached")
    assert made.files() == before
    lock.release(made.store, "run-1")
    with pytest.raises(ZeroDivisionError), rounds.holding(made.store, "promote", noon):
        raise ZeroDivisionError
    assert lock.read(made.store)[0].holder is None


def test_an_abandoned_round_asked_nothing_and_is_no_point_of_comparison(made_anywhere, holder, noon, export):
    made = made_anywhere
    made.drop("a", "b", "c", "d")
    export(made, "run-1", holder, "b")
    made.drop("more", "e", "f")
    given_up, _ = rounds.begin(made.store, holder("run-2"), noon + HOUR)
    with pytest.raises(LockedError, match="locked by run run-2"):
        rounds.abandon(made.store, "a run works on it", noon + HOUR)
    made.store.create(layout.run(2) + "train/checkpoint.json", b"half a model")
    rounds.mark_failed(made.store, 2, "run-2", "train: out of luck")
    lock.release(made.store, "run-2")
    abandoned = rounds.abandon(made.store, "the drop was of the wrong camera", noon + HOUR)
    assert (abandoned.state, abandoned.reason) == ("abandoned", "the drop was of the wrong camera")
    assert rounds.read(made.store, 2)[0] == abandoned
    assert abandoned.fence > given_up.fence
    assert list(made.store.list(layout.run(2))) == []
    plan = rounds.consider(made.store, noon + HOUR)
    assert (plan.decision, plan.number, plan.text) == ("plan", 3, "2 new samples since round 1")
    third, _ = rounds.begin(made.store, holder("run-3"), noon + HOUR)
    assert third.counts.queried == 1
    assert doctor.examine(made.store, noon + HOUR) == []


def test_a_late_run_cannot_export_a_round_that_was_abandoned(made, holder, noon):
    made.drop("a", "b")
    rounds.begin(made.store, holder("run-1"), noon)
    lock.unlock(made.store)
    rounds.abandon(made.store, "it hangs", noon)
    with pytest.raises(LockedError, match="run run-1 no longer holds the project: unlocked"):
        rounds.mark_exported(made.store, 1, "run-1", outcome(), noon)
    assert rounds.mark_failed(made.store, 1, "run-1", "too late").state == "abandoned"


def test_only_an_unfinished_round_can_be_abandoned(made, holder, noon, export):
    made.drop("a", "b", "c")
    with pytest.raises(InputError, match="there is no round to abandon"):
        rounds.abandon(made.store, "?", noon)
    export(made, "run-1", holder, "b")
    with pytest.raises(InputError, match="round 1 is exported; only an unfinished round can be abandoned"):
        rounds.abandon(made.store, "?", noon)


@pytest.mark.parametrize("end", ["answered", "expired"])
def test_a_round_closes_when_all_its_queries_are_decided_or_expired(made, holder, noon, export, end):
    made.drop("a", "b", "c", "d", "e")
    export(made, "run-1", holder, "b", "c")
    made.store.create(layout.run(1) + "checkpoint", b"half a model")
    made.label("1", b="cat")
    export(made, "run-2", holder, "d", at=noon + DAY)
    assert [record.state for record in rounds.read_all(made.store)] == ["exported", "exported"]
    assert made.store.entry(layout.run(1) + "checkpoint") is not None
    if end == "answered":
        made.label("2", c="cat")
        later = noon + 2 * DAY
    else:
        later = noon + 30 * DAY
    export(made, "run-3", holder, "e", at=later, force=True)
    assert [record.state for record in rounds.read_all(made.store)] == ["closed", "exported", "exported"]
    assert list(made.store.list(layout.run(1))) == []
    closed = rounds.read(made.store, 1)[0]
    assert (closed.fence, closed.outcome.queries) == (3, 2)


def test_a_round_is_a_function_of_settings_inputs_and_time(made, holder, noon):
    """Two plans of the same state at the same moment have one key; another moment, setting or input has another."""
    made.drop("a", "b")

    def key(at=noon):
        record, _ = planning.begin(made.store, holder("run"), at)
        lock.release(made.store, "run")
        made.store.delete(layout.round_file(1))
        return record.key

    keys = [key(), key(), key(noon + HOUR)]
    made.configure(budget=1)
    keys.append(key())
    made.drop("c", "d")
    keys.append(key())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_the_seed_of_a_round_comes_from_the_project_and_the_number_alone(made, holder, noon):
    made.drop("a", "b")
    record, _ = planning.begin(made.store, holder("run"), noon)
    assert record.seed == rounds.seed_of(0, 1)
    seeds = [rounds.seed_of(seed, number) for seed in range(20) for number in range(1, 20)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("pool", "size", "most", "shards"), [(1, 2, 16, 1), (4, 2, 16, 2), (5, 2, 16, 3), (9, 1, 4, 4)]
)
def test_shards_by_hand(made, noon, pool, size, most, shards):
    made.configure(round={"shard_size": size, "max_shards": most})
    made.drop("a", *(f"s{number}" for number in range(pool)))
    assert planning.consider(made.store, noon).shards == shards


def test_an_empty_pool_is_one_empty_shard(made, noon):
    made.drop("a", "b", label="cat")
    assert planning.consider(made.store, noon).shards == 1


def test_the_champion_of_the_moment_is_frozen_in_the_round(made, holder, noon):
    made.drop("a", "b")
    serving = champion.swap(made.store, Champion(), None, made.ask(1), {"accuracy": 0.5}, 1)
    record, _ = planning.begin(made.store, holder("run"), noon, force=True)
    current, tag = champion.read(made.store)
    champion.swap(made.store, current, tag, made.ask(3), {"accuracy": 0.9}, 1)
    assert rounds.read(made.store, record.number)[0].champion == serving == current


def test_what_a_person_put_beside_the_rounds_is_no_round(made, holder, noon):
    made.drop("a", "b")
    made.store.create("rounds/my notes/todo.txt", b"")
    planning.begin(made.store, holder("run"), noon)
    assert rounds.numbers(made.store) == [1]


def test_a_round_that_does_not_exist_is_named(made):
    with pytest.raises(InputError, match="has no round 7"):
        rounds.read(made.store, 7)
    assert rounds.numbers(made.store) == []


def test_a_plan_that_could_not_be_written_leaves_the_project_unlocked(made, holder, noon):
    made.drop("a", "b")
    made.store.create(layout.CHAMPION, b"{}{}")
    with pytest.raises(InputError, match=r"^champion.json: is not JSON"):
        planning.begin(made.store, holder("run"), noon)
    assert lock.read(made.store)[0].holder is None
    assert rounds.numbers(made.store) == []


def test_an_empty_folder_of_a_round_that_was_never_planned_does_not_count(made, noon):
    made.drop("d", "a", "b")
    path_of(made.store.uri_of("rounds/000001/round.json")).parent.mkdir(parents=True)
    assert rounds.numbers(made.store) == []
    assert planning.consider(made.store, noon).number == 1
