"""The rules by hand, and the verdicts as properties; tests/twin compares all of them with plain loops."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.project.ledger.ledger import Ledger
from alfamix_core.project.ledger.queries import connect, scratch
from alfamix_core.project.ledger.tables import Tables
from alfamix_core.records.project import Project, QueueSettings
from alfamix_core.records.tables import SCHEMAS

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def events(text, sample="s", at=NOON):
    """Parse ``ann:cat bob:skip@5 ann:withdraw@9r3``: who, what, minutes after noon, the round that asked."""
    found = []
    for place, word in enumerate(text.split()):
        annotator, _, said = word.partition(":")
        said, _, asked = said.partition("r") if "@" in said and "r" in said.split("@")[1] else (said, "", "0")
        said, _, minutes = said.partition("@")
        kind = said if said in ("skip", "cannot_label", "withdraw") else "label"
        found.append(
            {
                **{"event_id": f"e{place}", "sample_id": sample, "kind": kind, "annotator": annotator, "key": ""},
                **{"label": said if kind == "label" else None, "round": int(asked or 0), "line": 1, "load": 1},
                **{"time": at + timedelta(minutes=int(minutes or place)), "loaded_at": at + DAY},
            }
        )
    return found


def verdicts(queue, *histories):
    """Return the verdict of each history by the rules: (verdict, label, round)."""
    samples = [
        {**dict.fromkeys(("uri", "key"), ""), "sample_id": str(n), "split": "train", "line": n, "load": 1}
        for n in range(len(histories))
    ]
    rows = {
        "samples": samples,
        "events": [event | {"sample_id": str(n)} for n, history in enumerate(histories) for event in history],
    }
    project = Project(name="p", classes=("cat", "dog", "owl"), queue=queue)
    with scratch() as folder, connect(Path(folder)) as con:
        for name, schema in SCHEMAS.items():
            con.register(name, pa.Table.from_pylist(rows.get(name, []), schema=schema))
        ledger = Ledger(con, project, NOON + DAY, Tables({}))
        found = ledger.query(
            """select sample_id, verdict, verdicts.label, verdicts.round
            from known left join verdicts using (sample_id, verdict)"""
        )
    by_id = {row["sample_id"]: row for row in found.to_pylist()}
    said = [by_id[str(n)] for n in range(len(histories))]
    decided = ("label", "skip", "cannot_label")
    return [
        (row["verdict"], *((row["label"], row["round"]) if row["verdict"] in decided else (None, 0))) for row in said
    ]


ONE = QueueSettings(answers=1, max_answers=3)
TWO = QueueSettings(answers=2, max_answers=3)
AGREE = QueueSettings(agreement=2, max_answers=4)


BY_HAND = [
    (ONE, "", ("open", None, 0)),
    (ONE, "ann:cat", ("label", "cat", 0)),
    (ONE, "ann:cat@0r4", ("label", "cat", 4)),
    (ONE, "ann:skip", ("skip", None, 0)),
    (ONE, "ann:cannot_label", ("cannot_label", None, 0)),
    (ONE, "ann:cat ann:withdraw", ("open", None, 0)),
    (ONE, "ann:cat ann:withdraw ann:dog", ("label", "dog", 0)),
    (ONE, "ann:cat@9 ann:dog@5", ("label", "cat", 0)),
    (ONE, "ann:cat@5 ann:dog@5", ("label", "dog", 0)),
    (ONE, "ann:cat bob:dog", ("open", None, 0)),
    (ONE, "ann:cat bob:dog eve:dog", ("label", "dog", 0)),
    (ONE, "ann:cat bob:dog eve:owl", ("disputed", None, 0)),
    (ONE, "ann:cat bob:dog eve:owl ann:dog", ("label", "dog", 0)),
    (ONE, "ann:cat bob:dog eve:owl kim:owl", ("disputed", None, 0)),
    (AGREE, "ann:cat", ("open", None, 0)),
    (AGREE, "ann:cat bob:cat", ("label", "cat", 0)),
    (AGREE, "ann:cat bob:dog eve:cat", ("label", "cat", 0)),
    (AGREE, "ann:cat bob:dog eve:owl", ("open", None, 0)),
    (AGREE, "ann:cat bob:dog eve:owl kim:skip", ("disputed", None, 0)),
    (AGREE, "ann:cat bob:cat eve:dog kim:dog", ("disputed", None, 0)),
    (AGREE, "ann:cat bob:cat eve:dog kim:dog lou:dog", ("label", "dog", 0)),
    (AGREE, "ann:skip bob:skip", ("skip", None, 0)),
    (TWO, "ann:cat", ("open", None, 0)),
    (TWO, "ann:cat ann:cat", ("open", None, 0)),
    (TWO, "ann:cat bob:cat", ("label", "cat", 0)),
    (TWO, "ann:cat bob:withdraw eve:cat", ("label", "cat", 0)),
    (TWO, "ann:cat bob:skip", ("open", None, 0)),
    (TWO, "ann:skip bob:cat eve:skip", ("skip", None, 0)),
    (TWO, "ann:skip bob:cannot_label eve:cat", ("disputed", None, 0)),
    (TWO, "ann:cannot_label bob:cannot_label", ("cannot_label", None, 0)),
    (TWO, "ann:cat@0r2 bob:cat@1r5", ("label", "cat", 5)),
]


@pytest.mark.parametrize("queue", [ONE, TWO, AGREE], ids=["one", "two", "agree"])
def test_verdicts_by_hand(queue):
    cases = [(said, expected) for settings, said, expected in BY_HAND if settings is queue]
    found = verdicts(queue, *(events(said) for said, _ in cases))
    assert list(zip([said for said, _ in cases], found, strict=True)) == cases


def test_a_disputed_sample_with_fewer_answers_allowed_waits_no_longer():
    assert verdicts(QueueSettings(answers=2, max_answers=2), events("ann:cat bob:dog")) == [("disputed", None, 0)]


answers = st.builds(
    lambda who, what, minute: f"{who}:{what}@{minute}",
    st.sampled_from(["ann", "bob", "eve", "kim"]),
    st.sampled_from(["cat", "dog", "skip", "cannot_label", "withdraw"]),
    st.integers(0, 5),
)
histories = st.lists(answers, max_size=8).map(lambda words: events(" ".join(words)))


many = st.lists(histories, min_size=1, max_size=20)


@settings(max_examples=30, deadline=None)
@given(many, st.randoms(use_true_random=False), st.integers(1, 3), st.integers(1, 4))
def test_the_order_in_which_events_arrive_does_not_matter(found, random, asked, most):
    queue = QueueSettings(answers=asked, max_answers=most)
    shuffled = [random.sample(history, len(history)) for history in found]
    assert verdicts(queue, *shuffled) == verdicts(queue, *found)


@settings(max_examples=30, deadline=None)
@given(many)
def test_a_verdict_needs_more_than_half_of_those_who_still_stand_by_an_answer(found):
    for history, (verdict, label, _) in zip(found, verdicts(ONE, *found), strict=True):
        last = {}
        for event in sorted(history, key=lambda event: (event["time"], event["event_id"])):
            last[event["annotator"]] = (event["kind"], event["label"])
        standing = [answer for answer in last.values() if answer[0] != "withdraw"]
        if verdict in ("open", "disputed"):
            assert all(2 * standing.count(answer) <= len(standing) for answer in standing)
            assert (verdict == "disputed") == (len(standing) >= 3)
        else:
            assert 2 * standing.count((verdict, label)) > len(standing)


def test_an_agreement_that_cannot_be_reached_is_refused():
    with pytest.raises(ValueError, match="agreement 4 must be at most max_answers 3"):
        QueueSettings(agreement=4)


# the clock


def test_an_event_from_the_future_counts_as_of_the_moment_of_its_load(made, noon):
    """A clock that is a year ahead would otherwise outweigh every correction of that year."""
    made.drop("a", "b")
    made.events("1", made.event("wrong", "b", "cat", time=noon + 365 * DAY))
    made.load(noon + HOUR)
    assert made.labels(noon + HOUR) == {"b": "cat"}
    made.events("2", made.event("right", "b", "dog", time=noon + 2 * HOUR))
    assert made.labels(noon + 3 * HOUR) == {"b": "dog"}
    made.load(noon + 3 * HOUR)
    assert made.labels(noon + 3 * HOUR) == {"b": "dog"}


def test_of_two_events_from_the_future_that_came_together_the_later_counts(made, noon):
    made.drop("a", "b")
    first, second = made.event("z", "b", "cat", time=noon + DAY), made.event("a", "b", "owl", time=noon + 2 * DAY)
    made.events("1", second, first)
    made.load()
    assert made.labels() == {"b": "owl"}


def test_an_old_answer_that_is_delivered_late_does_not_outweigh_a_newer_one(made, noon):
    made.drop("a", "b")
    made.events("1", made.event("new", "b", "cat", time=noon))
    made.load(noon + HOUR)
    made.events("2", made.event("old", "b", "dog", time=noon - DAY))
    made.load(noon + 2 * HOUR)
    assert made.labels(noon + 2 * HOUR) == {"b": "cat"}


def test_moments_before_1970_and_in_other_time_zones_are_ordered_as_moments(made):
    made.drop("a", "b")
    line = made.event("old", "b", "cat").json_line()
    late = line.replace(b'"old"', b'"x"').replace(b'"cat"', b'"dog"')
    late = late.replace(b"2026-03-01T12:00:00Z", b"1021-01-01T00:00:00+14:00")
    assert late.count(b"1021") == 1
    made.store.create("labels/1.jsonl", late + line)
    assert made.labels() == {"b": "cat"}
    made.load()
    assert made.labels() == {"b": "cat"}


# trust


def test_only_what_was_asked_decides_a_test_or_audit_sample(made, noon):
    made.configure(audit={"share": 0.999})  # nearly all
    made.drop("a", "audit", "b")
    made.drop("t", "t", "u", split="test", label="cat")
    made.label("1", audit="dog", t="dog", u="dog")
    assert made.labels() == {"t": "cat", "u": "cat"}
    assert made.ledger().unasked_answers() == 3
    made.ask(1, "t")
    assert made.labels() == {"t": "dog", "u": "cat"}
    assert made.ledger().unasked_answers() == 2


@pytest.mark.parametrize(("accepted", "labels"), [(True, {"b": "cat", "v": "dog"}), (False, {})])
def test_whether_answers_that_nobody_asked_for_count_is_a_setting_for_train_and_val(made, accepted, labels):
    made.configure(queue={"accept_unasked": accepted})
    made.drop("a", "b")
    made.drop("v", "v", split="val")
    made.label("1", b="cat", v="dog")
    assert made.labels() == labels


def test_a_question_of_a_round_that_is_not_committed_asks_nothing(made, holder, noon):
    made.configure(queue={"accept_unasked": False})
    made.drop("a", "b", "c")
    made.questions(1, "b")
    made.label("1", b="cat")
    assert made.labels() == {}
    made.ask(1, "b")
    assert made.labels() == {"b": "cat"}
