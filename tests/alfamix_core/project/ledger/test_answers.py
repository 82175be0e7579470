"""What the answers say about those who give them."""

from datetime import timedelta

import pytest

from alfamix_core.project.ledger.answers import summarise


def test_nothing_was_answered(made):
    made.drop("a", "x")
    answers = summarise(made.ledger())
    assert (answers.kinds, answers.newest, answers.waiting, answers.agreement) == ({}, None, {}, None)


def test_kinds_and_the_newest_by_hand(made, noon):
    made.drop("a", "x", "y", "z")
    made.label("one", x="cat", y="dog")
    late = noon + timedelta(hours=3)
    made.events("two", made.event("e1", "z", kind="skip", time=late), made.event("e1", "z", kind="skip", time=late))
    answers = summarise(made.ledger(late))
    assert answers.kinds == {"label": 2, "skip": 1}
    assert answers.newest == late


def test_from_the_last_question_before_an_answer(made, noon):
    """One is asked at noon and again an hour later, answered half an hour after that; the other takes ten minutes."""
    made.drop("a", "x", "y", "z")
    made.ask(1, "x", "y", at=noon)
    made.ask(2, "x", at=noon + timedelta(hours=1))
    made.events("one", made.event("e1", "x", "cat", time=noon + timedelta(minutes=90)))
    made.events("two", made.event("e2", "y", "dog", time=noon + timedelta(minutes=10)))
    made.events("three", made.event("e3", "z", "dog", time=noon + timedelta(minutes=10)))
    assert summarise(made.ledger(noon + timedelta(hours=2))).waiting == {0.5: 1800.0, 0.9: 1800.0}


def test_agreement_of_pairs_by_hand(made, noon):
    """x: cat, cat, dog agree in 1 pair of 3; y: dog, dog in 1 of 1; of ann the last answer counts, bob withdrew."""
    made.drop("a", "x", "y", "z")
    later = noon + timedelta(minutes=1)
    made.events(
        "one",
        made.event("e1", "x", "cat", annotator="ann"),
        made.event("e2", "x", "cat", annotator="bob"),
        made.event("e3", "x", "dog", annotator="eve"),
        made.event("e4", "y", "cat", annotator="ann"),
        made.event("e5", "y", "dog", annotator="ann", time=later),
        made.event("e6", "y", "dog", annotator="eve"),
        made.event("e7", "z", "dog", annotator="ann"),
        made.event("e8", "z", "owl", annotator="bob"),
        made.event("e9", "z", kind="withdraw", annotator="bob", time=later),
    )
    assert summarise(made.ledger(later)).agreement == pytest.approx(2 / 4)


def test_an_answer_from_the_future_or_before_all_calendars_is_no_fault(made, noon):
    made.drop("a", "x", "y")
    line = made.event("e1", "x", "cat").json_line()
    made.store.create("labels/1.jsonl", line.replace(b"2026-03-01T12:00:00Z", b"0001-01-01T00:00:00+14:00"))
    assert summarise(made.ledger()).kinds == {}, "a moment that UTC cannot hold sets its file aside"
    made.events("2", made.event("e2", "y", "dog", time=noon + timedelta(days=900)))
    assert summarise(made.ledger()).newest == noon
