"""What a sample is follows from the files; nothing is a flag."""

import itertools
from datetime import timedelta

import pytest

from alfamix_core.errors import InputError
from alfamix_core.project import layout
from alfamix_core.project.ledger import derive, freeze
from alfamix_core.records.round import Counts
from alfamix_core.records.stage import Quarantined

DAY = timedelta(days=1)


def pool(ledger):
    return [sample.sample_id for sample in ledger.ordered() if ledger.in_pool(sample)]


def quarantine(made, number, *ids):
    lines = [Quarantined(sample_id=key, uri=key, reason="empty file").json_line() for key in ids]
    made.store.create(layout.quarantine(number), b"".join(lines))


def test_every_state_is_derived_and_the_counts_add_up(made):
    made.drop("a", *"bcdefghij")
    made.drop("labelled", "k", label="cat")
    made.drop("tested", "l", label="dog", split="test")
    made.drop("later", "m", split="val")
    made.ask(1, "b", "c", "d", "e", "f", "i")
    made.label("1", c="cat", g="owl")
    made.events(
        "2",
        made.event("skip", "d", kind="skip"),
        *(made.event(f"tie-{who}", "e", label, annotator=who) for who, label in [("x", "cat"), ("y", "dog")]),
        *(
            made.event(f"split-{who}", "f", label, annotator=who)
            for who, label in [("x", "cat"), ("y", "dog"), ("z", "owl")]
        ),
        made.event("taken-1", "i", "cat"),
        made.event("taken-2", "i", kind="withdraw", time=made.event("", "", kind="skip").time + DAY)
        if False
        else made.event("cannot", "i", kind="cannot_label", annotator="x"),
    )
    quarantine(made, 1, "h")
    ledger = made.ledger()
    assert pool(ledger) == ["j"]
    assert sorted(ledger.open_queries) == ["b", "e"]
    assert ledger.counts() == Counts(
        samples=12, pool=1, queried=2, train=3, test=1, skipped=1, disputed=1, quarantined=1, held_out=1
    ) or ledger.counts()
