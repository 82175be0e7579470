"""The audit reserve: an unbiased test sample of the stream."""

import json
from datetime import UTC, datetime

import pytest

from alfamix_core.errors import InputError
from alfamix_core.project import objects
from alfamix_core.project.ledger.ledger import audit_order
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
IDS = tuple(f"s{index:03d}" for index in range(200))


def reserved(share, seed=0):
    return {key for key in IDS if audit_order(seed, key) < share}


def asked_next(made):
    return {key for key, _ in made.ledger().reserve(0, len(IDS))}


def audit_question(key):
    return Question(sample_id=key, uri="file:///x", round=1, rank=0, audit=True, asked_at=NOON)


def test_the_reserve_is_the_share_by_hash_and_never_in_the_pool(made):
    made.configure(audit={"share": 0.25})
    made.drop("d", *IDS)
    assert asked_next(made) == reserved(0.25)
    assert set(made.pool()) == set(IDS) - reserved(0.25)
    assert 30 < len(reserved(0.25)) < 70
    assert reserved(0.25) != reserved(0.25, seed=1)


def test_the_reserve_is_asked_in_hash_order(made):
    made.configure(audit={"share": 0.25})
    made.drop("d", *IDS)
    places = [audit_order(0, key) for key, _ in made.ledger().reserve(0, 10)]
    assert len(places) == 10
    assert places == sorted(places)
    assert places[-1] < min(audit_order(0, key) for key in reserved(0.25) if audit_order(0, key) not in places)


def test_a_label_of_the_reserve_is_of_the_split_audit_and_not_of_train(made):
    made.configure(audit={"share": 0.25})
    made.drop("d", *IDS)
    ((first, _),) = made.ledger().reserve(0, 1)
    made.commit(1, questions=objects.write_lines(made.store, 1, [audit_question(first)]))
    made.label("b", **{first: "cat"})
    counts = made.ledger().counts()
    assert (counts.audit, counts.train) == (1, 0)


def test_what_a_strategy_has_asked_never_becomes_audit(made):
    made.drop("d", *IDS)
    biased = sorted(reserved(0.25))[:2]
    made.ask(1, *biased)
    made.label("b", **{biased[0]: "cat"})
    made.configure(audit={"share": 0.25})
    assert made.ledger().counts().train == 1
    assert not asked_next(made) & set(biased)


def test_what_was_asked_for_the_audit_stays_there_when_the_share_shrinks(made):
    made.configure(audit={"share": 0.25})
    made.drop("d", *IDS)
    ((first, _),) = made.ledger().reserve(0, 1)
    made.commit(1, questions=objects.write_lines(made.store, 1, [audit_question(first)]))
    made.configure(audit={"share": 0.0})
    found = made.ledger().query("select sample_id from states where split = 'audit'")
    assert found["sample_id"].to_pylist() == [first]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"audit": {"per_round": 5}}, "audit.per_round needs an audit.share above 0"),
        ({"budget": 4, "audit": {"share": 0.1, "per_round": 5}}, "must be at most the budget 4"),
        ({"policy": {"class_shares": {"cow": 0.5}}}, 'policy.class_shares names "cow", which is not a class'),
        ({"policy": {"allowed_groups": ["a"], "excluded_groups": ["a"]}}, "both allows and excludes the groups a"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields, line):
    text = json.dumps({"name": "x", "classes": ["cat", "dog"], **fields})
    with pytest.raises(InputError, match=line):
        Project.parse(text, "project.json")
