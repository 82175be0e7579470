"""Verdicts, by hand and as properties."""

from datetime import UTC, datetime, timedelta

import pytest
from alfamix_core.project.consensus import Verdict, verdict
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.project import QueueSettings

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def events(text):
    """Parse ``ann:cat bob:skip@5 ann:withdraw@9r3``: who, what, minutes after noon, the round that asked."""
    found = []
    for place, word in enumerate(text.split()):
        annotator, _, said = word.partition(":")
        said, _, asked = said.partition("r") if "@" in said and "r" in said.split("@")[1] else (said, "", "0")
        said, _, minutes = said.partition("@")
        kind = said if said in ("skip", "cannot_label", "withdraw") else "label"
        found.append(
            LabelEvent(
                event_id=f"e{place}",
                sample_id="s",
                kind=kind,
                label=said if kind == "label" else None,
                annotator=annotator,
                round=int(asked or 0),
                time=NOON + timedelta(minutes=int(minutes or place)),
            )
        )
    return found


ONE = QueueSettings(answers=1, max_answers=3)
TWO = QueueSettings(answers=2, max_answers=3)
AGREE = QueueSettings(agreement=2, max_answers=4)


@pytest.mark.parametrize(
    ("settings", "said", "expected"),
    [
        (ONE, "", Verdict("open")),
        (ONE, "ann:cat", Verdict("label", "cat")),
        (ONE, "ann:cat@0r4", Verdict("label", "cat", 4)),
        (ONE, "ann:skip", Verdict("skip")),
        (ONE, "ann:cannot_label", Verdict("cannot_label")),
        (ONE, "ann:cat ann:withdraw", Verdict("open")),
        (ONE, "ann:cat ann:withdraw ann:dog", Verdict("label", "dog")),
        (ONE, "ann:cat@9 ann:dog@5", Verdict("label", "cat")),
        (ONE, "ann:cat@5 ann:dog@5", Verdict("label", "dog")),
        (ONE, "ann:cat bob:dog", Verdict("open")),
        (ONE, "ann:cat bob:dog eve:dog", Verdict("label", "dog")),
        (ONE, "ann:cat bob:dog eve:owl", Verdict("disputed")),
        (ONE, "ann:cat bob:dog eve:owl ann:dog", Verdict("label", "dog")),
        (ONE, "ann:cat bob:dog eve:owl kim:owl", Verdict("disputed")),
        (AGREE, "ann:cat", Verdict("open")),
        (AGREE, "ann:cat bob:cat", Verdict("label", "cat")),
        (AGREE, "ann:cat bob:dog eve:cat", Verdict("label", "cat")),
        (AGREE, "ann:cat bob:dog eve:owl", Verdict("open")),
        (AGREE, "ann:cat bob:dog eve:owl kim:skip", Verdict("disputed")),
        (AGREE, "ann:cat bob:cat eve:dog kim:dog", Verdict("disputed")),
        (AGREE, "ann:cat bob:cat eve:dog kim:dog lou:dog", Verdict("label", "dog")),
        (AGREE, "ann:skip bob:skip", Verdict("skip")),
        (TWO, "ann:cat", Verdict("open")),
        (TWO, "ann:cat ann:cat", Verdict("open")),
        (TWO, "ann:cat bob:cat", Verdict("label", "cat")),
        (TWO, "ann:cat bob:withdraw eve:cat", Verdict("label", "cat")),
        (TWO, "ann:cat bob:skip", Verdict("open")),
        (TWO, "ann:skip bob:cat eve:skip", Verdict("skip")),
        (TWO, "ann:skip bob:cannot_label eve:cat", Verdict("disputed")),
        (TWO, "ann:cannot_label bob:cannot_label", Verdict("cannot_label")),
        (TWO, "ann:cat@0r2 bob:cat@1r5", Verdict("label", "cat", 5)),
    ],
)
def test_verdicts_by_hand(settings, said, expected):
    assert verdict(events(said), settings) == expected


def test_a_disputed_sample_with_fewer_answers_allowed_waits_no_longer():
    assert verdict(events("ann:cat bob:dog"), QueueSettings(answers=2, max_answers=2)) == Verdict("disputed")


answers = st.builds(
    lambda who, what, minute: f"{who}:{what}@{minute}",
    st.sampled_from(["ann", "bob", "eve", "kim"]),
    st.sampled_from(["cat", "dog", "skip", "cannot_label", "withdraw"]),
    st.integers(0, 5),
)
histories = st.lists(answers, max_size=8).map(lambda words: events(" ".join(words)))


@given(histories, st.randoms(use_true_random=False), st.integers(1, 3), st.integers(1, 4))
def test_the_order_in_which_events_arrive_does_not_matter(history, random, asked, most):
    settings = QueueSettings(answers=asked, max_answers=most)
    shuffled = random.sample(history, len(history))
    assert verdict(shuffled, settings) == verdict(history, settings)


@given(histories)
def test_a_verdict_needs_more_than_half_of_those_who_still_stand_by_an_answer(history):
    found = verdict(history, ONE)
    last = {}
    for event in sorted(history, key=lambda event: event.order):
        last[event.annotator] = (event.kind, event.label)
    standing = [answer for answer in last.values() if answer[0] != "withdraw"]
    agreeing = standing.count((found.state, found.label))
    if found.state in ("open", "disputed"):
        assert all(2 * standing.count(answer) <= len(standing) for answer in standing)
        assert (found.state == "disputed") == (len(standing) >= 3)
    else:
        assert 2 * agreeing > len(standing)


def test_an_agreement_that_cannot_be_reached_is_refused():
    with pytest.raises(ValueError, match="agreement 4 must be at most max_answers 3"):
        QueueSettings(agreement=4)
