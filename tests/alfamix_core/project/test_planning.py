"""When a round starts, and what is frozen in it, whatever people do to the inbox meanwhile."""

import os
import shutil
from datetime import timedelta

import pytest

from alfamix_core.errors import InputError, LockedError
from alfamix_core.project import champion, doctor, layout, lock, planning, rounds
from alfamix_core.project.inbox.corrections import withdraw
from alfamix_core.project.ledger.ledger import frozen_ledger
from alfamix_core.records.round import Counts, Outcome
from alfamix_core.storage import path_of
from tests.alfamix_core.project.conftest import outcome

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


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
    fence = lock.read(made.store)[0].fence
    assert fence > record.fence, "it loaded the round"
    assert not [finding for finding in doctor.examine(made.store, noon) if finding.kind == "locked"]
    made.drop("b", *(f"x{number}" for number in range(2_000)))
    assert planning.begin(made.store, holder("run-3"), noon)[0].fence == fence + 1


def test_the_first_round_is_planned_with_all_it_needs_frozen(made_anywhere, holder, noon):
    made = made_anywhere
    made.drop("a", "b", "c", "d")
    made.label("1", c="cat")
    record, plan = planning.begin(made.store, holder("run-1"), noon)
    assert (plan.decision, plan.text) == ("plan", "the first round")
    assert (record.number, record.state, record.run_id, record.fence, record.revision) == (1, "planned", "run-1", 1, 1)
    assert record.versions == {
        **{"samples": 1, "events": 1, "questions": 0, "quarantine": 0, "corrections": 0, "inbox": 1}
    }
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


def test_idle_takes_no_number_and_writes_nothing_once_the_round_is_loaded(made, holder, noon, export):
    made.drop("a", "b", "c")
    export(made, "run-1", holder, "b")
    assert planning.begin(made.store, holder("run-1"), noon + HOUR)[1].decision == "idle"
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
def test_an_interrupted_round_continues_with_what_was_frozen_in_it(made_anywhere, holder, noon, ended):
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
    with frozen_ledger(made.store, second) as ledger:
        assert ledger.counts() == first.counts
    assert rounds.numbers(made.store) == [1]


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


def test_a_round_is_a_function_of_settings_versions_and_time(made, holder, noon):
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
    assert record.seed == planning.seed_of(0, 1)
    seeds = [planning.seed_of(seed, number) for seed in range(20) for number in range(1, 20)]
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
    serving = champion.swap(made.store, champion.read(made.store), made.ask(1), {"accuracy": 0.5}, 1)
    record, _ = planning.begin(made.store, holder("run"), noon, force=True)
    champion.swap(made.store, champion.read(made.store), made.ask(3), {"accuracy": 0.9}, 1)
    assert rounds.read(made.store, record.number)[0].champion == serving


def test_a_plan_that_could_not_be_written_leaves_the_project_unlocked(made, holder, noon):
    made.drop("a", "b")
    made.store.create(layout.CHAMPION, b"{}{}")
    with pytest.raises(InputError, match=r"^champion.json: is not JSON"):
        planning.begin(made.store, holder("run"), noon)
    assert lock.read(made.store)[0].holder is None
    assert rounds.numbers(made.store) == []


def test_a_round_that_was_planned_before_a_withdrawal_keeps_its_world(made, holder, noon):
    made.drop("a", "b", "c")
    record, _ = planning.begin(made.store, holder("run-1"), noon)
    with pytest.raises(LockedError, match="locked by run run-1"):
        withdraw(made.store, ["b"], "", noon, "gone.txt")
    lock.release(made.store, "run-1")
    withdraw(made.store, ["b"], "", noon, "gone.txt")
    with frozen_ledger(made.store, record) as ledger:
        assert ledger.counts() == record.counts
    assert made.ledger().counts().pool == 1


def test_classes_may_be_added_at_the_end_and_not_renamed_moved_or_removed(made, holder, noon):
    made.drop("a", "b", "c")
    planning.begin(made.store, holder("run-1"), noon)
    rounds.mark_exported(made.store, 1, "run-1", Outcome(queries=0, strategy="random", exported_at=noon), noon)
    lock.release(made.store, "run-1")
    made.configure(classes=["cat", "dog", "owl", "fox"])
    made.label("1", b="fox")
    assert planning.consider(made.store, noon).decision == "plan"
    for classes in (["dog", "cat", "owl", "fox"], ["cat", "dog"], ["cat", "dog", "eagle", "owl"]):
        made.configure(classes=classes)
        with pytest.raises(InputError, match="classes: those of round 1 must come first and in their order"):
            planning.consider(made.store, noon)


def test_a_project_that_stops_by_itself_is_idle_and_says_why(made, holder, noon):
    made.drop("a", "b")
    planning.begin(made.store, holder("run-1"), noon)
    rounds.mark_exported(made.store, 1, "run-1", Outcome(queries=0, strategy="random", exported_at=noon), noon)
    lock.release(made.store, "run-1")
    made.label("1", b="cat")
    assert planning.consider(made.store, noon).decision == "plan"
    made.configure(stop={"auto_stop": True})
    plan = planning.consider(made.store, noon)
    assert (plan.decision, plan.text) == (
        "idle",
        "another round is not worth it: no sample is left that could be asked",
    )
    assert planning.consider(made.store, noon, force=True).decision == "plan"


# the inbox may change at any moment; no round depends on it


@pytest.mark.parametrize("arrives", ["before the lock", "after the load", "before round.json"])
def test_what_arrives_while_a_round_is_planned_wedges_nothing_and_counts_for_the_next(
    made_anywhere, holder, noon, monkeypatch, arrives
):
    """A label batch and a drop come, and a file that was just loaded is deleted."""
    made = made_anywhere
    made.drop("a", "b", "c", "d")
    module, name = {
        "before the lock": (planning.lock, "acquire"),
        "after the load": (planning, "_judge"),
        "before round.json": (planning, "_new_round"),
    }[arrives]
    real = getattr(module, name)

    def late(*arguments):
        monkeypatch.setattr(module, name, real)
        made.label("late", b="cat")
        made.drop("late", "e")
        made.edit(layout.manifest("a"), lambda data: data.splitlines(keepends=True)[0])
        return real(*arguments)

    monkeypatch.setattr(module, name, late)
    record, _ = planning.begin(made.store, holder("run-1"), noon)
    with frozen_ledger(made.store, record) as ledger:
        assert ledger.counts() == record.counts
    rounds.mark_exported(made.store, 1, "run-1", outcome(queries=0), noon)
    lock.release(made.store, "run-1")
    second, plan = planning.begin(made.store, holder("run-2"), noon + HOUR, force=True)
    known = 2 if arrives == "before the lock" else 4  # two lines of the first drop went before anyone read them
    assert (plan.decision, second.counts.samples, second.counts.train) == ("plan", known, 1)


@pytest.mark.parametrize("change", ["append", "replace", "delete"])
def test_a_frozen_file_that_somebody_changes_changes_nothing_for_its_round(made_anywhere, holder, noon, change):
    made = made_anywhere
    made.drop("a", "b", "c")
    made.label("1", b="cat")
    record, _ = planning.begin(made.store, holder("run-1"), noon)
    for key, more in (("drops/a/manifest.jsonl", made.lines("d")), ("labels/1.jsonl", b"{")):
        if change == "delete":
            made.store.delete(key)
        else:
            made.edit(key, lambda data, more=more: (data if change == "append" else b"") + more)
    resumed, plan = planning.begin(made.store, holder("run-2"), noon + DAY)
    assert (plan.decision, resumed.key) == ("resume", record.key)
    with frozen_ledger(made.store, resumed) as ledger:
        assert ledger.counts() == record.counts == Counts(samples=2, pool=1, train=1)
    rounds.mark_exported(made.store, 1, "run-2", outcome(queries=0), noon + DAY)
    lock.release(made.store, "run-2")
    assert planning.consider(made.store, noon + DAY).decision == ("idle" if change == "delete" else "plan")


def test_a_round_computed_again_has_another_key_and_the_same_versions(made, holder, noon):
    """No cache and no object of the round's first attempt is in its way, whatever was repaired in between."""
    made.drop("a", "b", "c")
    record, _ = planning.begin(made.store, holder("run-1"), noon)
    lock.release(made.store, "run-1")
    made.drop("z", "d")
    for _ in range(2):  # a repeated ingest of one run counts once
        again, _ = planning.begin(made.store, holder("run-2"), noon + HOUR, fresh=True)
    assert again.key == f"{record.key}-1"
    assert (again.versions, again.counts, again.planned_at) == (record.versions, record.counts, record.planned_at)
    with frozen_ledger(made.store, again) as ledger:
        assert ledger.counts() == record.counts


def test_an_abandoned_round_asked_nothing_and_its_news_count_for_the_next(made, holder, noon, export):
    made.drop("a", "b", "c")
    export(made, "run-1", holder)
    made.label("1", b="cat")
    planned, _ = planning.begin(made.store, holder("run-2"), noon + HOUR)
    lock.release(made.store, "run-2")
    made.questions(planned.number, "c")
    rounds.abandon(made.store, "a broken file", noon + HOUR)
    third, plan = planning.begin(made.store, holder("run-3"), noon + 2 * HOUR)
    assert (third.number, plan.text) == (3, "1 new labels since round 1")
    assert (third.counts.pool, third.counts.queried) == (1, 0)


@pytest.mark.parametrize("news", ["ten withdrawn and ten new", "a corrected label"])
def test_news_that_leave_the_totals_as_they_are_start_a_round(made, holder, noon, export, news):
    made.configure(round={"min_new_samples": 1_000})
    ids = [f"s{n}" for n in range(20)]
    made.drop("a", *ids, label="cat")
    made.drop("p", "x", "y")
    export(made, "run-1", holder)
    assert planning.consider(made.store, noon + HOUR).decision == "idle"
    if news == "a corrected label":
        made.label("1", s3="dog")
    else:
        withdraw(made.store, ids[:10], "", noon, "gone.txt")
        made.drop("b", *(f"n{n}" for n in range(10)), label="cat")
    record, plan = planning.begin(made.store, holder("run-2"), noon + HOUR)
    assert plan.text == f"{1 if news == 'a corrected label' else 10} new labels since round 1"
    assert record.counts.train == 20


def test_a_drop_starts_one_round(made, holder, noon, export):
    made.drop("a", "b", "c")
    export(made, "run-1", holder, "b")
    made.drop("z", "d")
    assert planning.consider(made.store, noon + HOUR).decision == "plan"
    export(made, "run-2", holder, "c", at=noon + HOUR)
    before = {key: data for key, data in made.files().items() if key != layout.LOCK}
    for hours in (2, 3):
        assert planning.begin(made.store, holder("run-3"), noon + hours * HOUR)[1].decision == "idle"
    after = {key: data for key, data in made.files().items() if key != layout.LOCK}
    assert {key for key in before.keys() ^ after.keys() if not key.startswith("ledger/")} == set()


def test_an_idle_start_opens_no_inbox_file_and_takes_no_lock(made_anywhere, holder, noon, export, monkeypatch):
    made = made_anywhere
    made.drop("a", "b", "c")
    export(made, "run-1", holder, "b")
    planning.begin(made.store, holder("run-2"), noon + HOUR)
    before = made.files()
    read, real = [], type(made.store).fetch
    monkeypatch.setattr(type(made.store), "fetch", lambda store, key, path: read.append(key) or real(store, key, path))
    assert planning.begin(made.store, holder("run-3"), noon + 2 * HOUR)[1].decision == "idle"
    assert (read, made.files()) == ([], before)


@pytest.mark.parametrize("key", ["queue/000001.jsonl", "ledger/0a1b/segment.json"])
def test_a_project_of_the_old_layout_is_refused_with_one_line(made_anywhere, holder, noon, key):
    made = made_anywhere
    made.drop("a", "b")
    made.store.create(key, b"{}")
    named = key if key.startswith("ledger") else "queue/"
    for act in (rounds.read_settings, lambda store: planning.begin(store, holder("run-1"), noon)):
        with pytest.raises(InputError) as refused:
            act(made.store)
        assert str(refused.value) == (
            f"{made.store.uri} has the layout of an earlier version, which is not read any more: it has {named}; make "
            "a new project with `alfamix init`, and deliver its samples and labels there"
        )


def test_a_ledger_that_was_made_again_is_loaded_and_no_point_of_comparison(made, holder, noon, export):
    """Its versions start at zero: compared by number alone, nothing would be new for a long time."""
    made.drop("a", "b", "c", "d")
    for number in range(3):
        made.label(f"l{number}", **{"bcd"[number]: "cat"})
        made.load()
    export(made, "run-1", holder)
    shutil.rmtree(path_of(made.store.uri) / "ledger")
    made.drop("new", "e")
    again, plan = planning.begin(made.store, holder("run-2"), noon + HOUR)
    assert again.counts.samples == 4
    assert plan.text == "3 new labels since round 1"
    assert (again.counts.train, again.versions["samples"]) == (3, 1)


def test_an_unfinished_round_does_not_read_a_ledger_that_was_made_again(made, holder, noon):
    made.drop("a", "b", "c")
    record, _ = planning.begin(made.store, holder("run-1"), noon)
    shutil.rmtree(path_of(made.store.uri) / "ledger")
    made.load(noon + 48 * HOUR)
    with (
        pytest.raises(InputError, match=r"^round 1 froze another ledger than ledger/ holds now; put that one back, or"),
        frozen_ledger(made.store, record),
    ):
        raise AssertionError("not reached")
