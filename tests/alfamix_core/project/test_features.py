"""Kept features leave with what they belong to, and damage to them is found."""

from datetime import UTC, datetime, timedelta

import pytest

from alfamix_core.project import champion, cleaning, doctor, layout, lock, planning, rounds
from alfamix_core.records.feature_parts import list_parts, read_part, write_part
from alfamix_core.records.round import Outcome, Promotion

LATER = timedelta(days=1, minutes=1)


@pytest.fixture
def project(made_anywhere, holder, noon):
    """Return a project, and a function that commits rounds which name these encoders; the last one serves."""
    made_anywhere.drop("a", *"bcdefg")

    def commit(*encoders):
        for number, encoder in enumerate(encoders, start=1):
            run = f"run-{number}"
            planning.begin(made_anywhere.store, holder(run), noon, force=True)
            promotion = Promotion(
                promoted=True, reason="better", model=made_anywhere.model(f"{number}"), metrics={}, encoder=encoder
            )
            outcome = Outcome(queries=0, strategy="random", exported_at=noon)
            record = rounds.mark_exported(
                made_anywhere.store,
                number,
                run,
                outcome,
                noon,
                objects=made_anywhere.questions(number),
                promotion=promotion,
            )
            champion.apply(made_anywhere.store, record)
            lock.release(made_anywhere.store, run)

    return made_anywhere, commit


def keep(store, encoder, *sample_ids):
    """Keep four bytes of output per sample: its id, four times."""
    return write_part(store, layout.features(encoder), sample_ids, b"".join(key.encode() * 4 for key in sample_ids))


def kept(store, encoder):
    tables = [read_part(store, part) for part in list_parts(store, layout.features(encoder))]
    return {row["sample_id"]: row["output"] for table in tables for row in table.to_pylist()}


def close(made, count):
    """Close the rounds, which asked nothing."""
    for number in range(1, count + 1):
        record, tag = rounds.read(made.store, number)
        if record.state == "exported":
            rounds.swap(made.store, record, tag, state="closed")


def test_features_of_encoders_that_no_kept_round_names_go_after_a_day(project):
    """The champion of round 4 keeps d, the one before it c; of the others only a kept round does."""
    made, commit = project
    commit("a", "b", "c", "d")
    now = datetime.now(UTC)
    for encoder in "abcdx":
        keep(made.store, encoder, "b")
    close(made, 4)

    def going(keep_rounds):
        entries = cleaning.removable(made.store, keep_rounds, now + LATER)
        return {entry.key.split("/")[1] for entry in entries if entry.key.startswith(layout.FEATURES)}

    assert going(0) == {"a", "b", "x"}
    assert going(3) == {"a", "x"}
    assert going(9) == {"x"}
    assert not any(layout.FEATURES in entry.key for entry in cleaning.removable(made.store, 0, now)), "too young"
    cleaning.clean(made.store, 0, now + LATER)
    assert {entry.key.split("/")[1] for entry in made.store.list(layout.FEATURES)} == {"c", "d"}


def test_while_a_round_is_unfinished_every_encoder_stays(project, holder, noon):
    """It names its encoder only when it is exported, and may be resumed days later."""
    made, commit = project
    commit("a")
    keep(made.store, "b", "b")
    planning.begin(made.store, holder("run-2"), noon, force=True)
    lock.unlock(made.store)
    now = datetime.now(UTC) + LATER
    assert not any(entry.key.startswith(layout.FEATURES) for entry in cleaning.removable(made.store, 0, now))


def test_clean_removes_withdrawn_and_quarantined_samples_and_nothing_else(project, noon):
    made, commit = project
    commit("a")
    for ids in ("bcd", "efg", "h", "i"):
        keep(made.store, "a", *ids)
    made.store.create(layout.withdrawn("w"), b'{"sample_id": "c", "time": "2026-03-01T12:00:00Z"}\n')
    made.store.create(layout.withdrawn("v"), b'{"sample_id": "h", "time": "2026-03-01T12:00:00Z"}\n')
    made.quarantine(2, "g")
    entries = cleaning.removable(made.store, 9, noon)
    assert len(entries) == 3
    assert cleaning.clean(made.store, 9, noon) == entries
    assert kept(made.store, "a") == {key: key.encode() * 4 for key in "bdefi"}
    assert cleaning.clean(made.store, 9, noon) == []
    assert doctor.examine(made.store, noon, deep=True) == [
        finding for finding in doctor.examine(made.store, noon) if not finding.key.startswith(layout.FEATURES)
    ]


def test_doctor_finds_what_no_round_can_use(project, noon):
    made, commit = project
    commit("a")
    whole, cut = keep(made.store, "a", "b"), keep(made.store, "a", "c")
    made.edit(cut, lambda data: data[:-1])
    made.store.create("features/a/notes.txt", b"mine")
    assert not any(finding.key.startswith(layout.FEATURES) for finding in doctor.examine(made.store, noon))
    found = {finding.key: finding for finding in doctor.examine(made.store, noon, deep=True)}
    assert whole not in found
    assert found[cut].what == "is damaged: its bytes are not those of its digest"
    assert found[cut].do == "delete it; the next round computes its samples again"
    assert found["features/a/notes.txt"].what == "is not a part of an encoder's features"
