"""What a sample is follows from the files; nothing is a flag."""

import itertools
from datetime import timedelta

import pytest
from alfamix_core.project.consensus import Verdict
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from alfamix_core.project import layout
from alfamix_core.project.ledger import Ledger, Sample, derive, freeze
from alfamix_core.records.query import Question
from alfamix_core.records.round import Counts

DAY = timedelta(days=1)


def pool(ledger):
    return [sample.sample_id for sample in ledger.ordered() if ledger.in_pool(sample)]


def test_every_state_is_derived_from_the_files_by_hand(made):
    made.drop("a", *"bcdefghij")
    made.drop("labelled", "k", label="cat")
    made.drop("tested", "l", label="dog", split="test")
    made.drop("later", "m", split="val")
    made.ask(1, "b", "c", "d", "e", "f")
    made.quarantine(1, "h")
    made.label("1", c="cat", g="owl")
    made.events(
        "2",
        made.event("d", "d", kind="skip"),
        made.event("i", "i", kind="cannot_label"),
        made.event("e1", "e", "cat", annotator="x"),
        made.event("e2", "e", "dog", annotator="y"),
        made.event("f1", "f", "cat", annotator="x"),
        made.event("f2", "f", "dog", annotator="y"),
        made.event("f3", "f", "owl", annotator="z"),
    )
    ledger = made.ledger()
    assert pool(ledger) == ["j"]
    assert sorted(ledger.open_queries) == ["b", "e"]
    assert ledger.quarantined == {"h"}
    assert {s.sample_id: ledger.label(s) for s in ledger.ordered() if ledger.label(s)} == {
        "c": "cat",
        "g": "owl",
        "k": "cat",
        "l": "dog",
    }
    assert ledger.counts() == Counts(
        samples=12, pool=1, queried=2, train=3, test=1, skipped=2, disputed=1, quarantined=1, held_out=1
    )


SAMPLES = st.builds(
    Sample,
    st.sampled_from("abcdefgh"),
    st.just("file:///x"),
    st.sampled_from([None, "cat"]),
    st.sampled_from(["train", "val", "test"]),
    st.none(),
)
VERDICTS = st.sampled_from(
    [Verdict("open"), Verdict("label", "dog"), Verdict("skip"), Verdict("cannot_label"), Verdict("disputed")]
)


@given(st.lists(SAMPLES), st.dictionaries(st.sampled_from("abcdefgh"), VERDICTS), st.sets(st.sampled_from("abcdefgh")))
def test_every_sample_is_in_exactly_one_state(samples, verdicts, quarantined):
    ledger = Ledger({s.sample_id: s for s in samples}, verdicts, {}, quarantined)
    counts = ledger.counts()
    states = counts.model_dump()
    assert states.pop("samples") == sum(states.values())
    assert len(pool(ledger)) == counts.pool


def test_a_labelled_sample_may_be_corrected_by_people(made):
    made.drop("a", "b", label="cat")
    made.label("1", b="dog")
    assert made.ledger().label(made.ledger().samples["b"]) == "dog"
    made.events(
        "2", made.event("no", "b", kind="withdraw", annotator="ann", time=made.event("t", "b", "cat").time + DAY)
    )
    assert made.ledger().label(made.ledger().samples["b"]) == "cat"


def test_a_query_expires_after_its_days_and_the_sample_returns(made, noon):
    made.drop("a", "b", "c")
    made.ask(1, "b")
    almost = noon + 30 * DAY - timedelta(seconds=1)
    assert (pool(made.ledger(almost)), list(made.ledger(almost).open_queries)) == (["c"], ["b"])
    assert (pool(made.ledger(noon + 30 * DAY)), list(made.ledger(noon + 30 * DAY).open_queries)) == (["b", "c"], [])


def test_a_late_answer_counts_and_closes_whatever_query_is_open(made, noon):
    made.drop("a", "b")
    made.ask(1, "b")
    made.ask(2, "b", at=noon + 40 * DAY)
    later = noon + 41 * DAY
    assert made.ledger(later).open_queries["b"].round == 2
    made.events("late", made.event("late", "b", "owl", asked_in=1))
    assert made.ledger(later).open_queries == {}
    assert pool(made.ledger(later)) == []
    assert made.ledger(later).verdicts["b"] == Verdict("label", "owl", 1)


def test_there_are_never_two_open_queries_for_a_sample(made, noon):
    made.drop("a", "b", "c")
    made.ask(1, "b", "c")
    made.configure(queue={"expires_after_days": 1})
    made.ask(2, "b", at=noon + 2 * DAY)
    made.configure(queue={"expires_after_days": 30})
    ledger = made.ledger(noon + 3 * DAY)
    assert {key: question.round for key, question in ledger.open_queries.items()} == {"b": 2, "c": 1}


def test_a_tie_keeps_the_same_query_open_until_too_many_have_answered(made):
    made.drop("a", "b")
    made.ask(1, "b")
    for annotator, label, stays in (("x", "cat", False), ("y", "dog", True), ("z", "owl", False)):
        made.events(annotator, made.event(annotator, "b", label, annotator=annotator))
        ledger = made.ledger()
        assert [question.round for question in ledger.open_queries.values()] == [1] * stays
        assert pool(ledger) == []
    assert ledger.verdicts["b"].state == "disputed"


def test_a_sample_whose_label_came_with_a_later_drop_is_asked_no_longer(made):
    made.drop("unlabelled", "b")
    made.ask(1, "b")
    # of two lines about a sample the one in the drop whose name comes first counts
    line = made.store.read(layout.manifest("unlabelled")).data
    uri = made.store.uri_of(layout.drop("unlabelled") + "files/b.png").encode()
    made.configure(data_prefixes=[made.store.uri])
    made.store.create(layout.manifest("a"), line.replace(b"files/b.png", uri).replace(b"}", b', "label": "cat"}'))
    ledger = made.ledger()
    assert (ledger.repeated, ledger.open_queries, ledger.counts().train) == (1, {}, 1)


def test_a_sample_that_cannot_be_read_is_asked_no_longer(made):
    made.drop("a", "b")
    made.ask(1, "b")
    made.quarantine(2, "b")
    assert made.ledger().open_queries == {}


def test_an_event_id_counts_once_whichever_file_repeats_it(made):
    made.drop("a", "b")
    made.events("1", made.event("same", "b", "cat"))
    later = made.event("t", "b", "dog").time + DAY
    made.events("2", made.event("same", "b", "cat"), made.event("same", "b", "dog", time=later))
    assert made.ledger().label_events == 1
    assert made.ledger().verdicts["b"] == Verdict("label", "cat")


def test_the_pool_does_not_depend_on_the_order_in_which_drops_arrive(made):
    drops = {"x": "bd", "y": "ac", "z": "e"}
    found = []
    for order in itertools.permutations(drops):
        for name in order:
            made.drop(name, *drops[name])
        found.append((pool(made.ledger()), freeze(made.store)))
        for name in order:
            made.store.delete(layout.manifest(name))
    assert all(each == found[0] for each in found)
    assert found[0][0] == list("abcde")


def test_a_drop_without_its_manifest_does_not_exist(made):
    made.store.create("drops/half/files/a.png", b"half")
    made.store.create("drops/half/files/manifest.jsonl", b"not ours")
    assert freeze(made.store) == ()


@pytest.mark.parametrize("change", ["edit", "remove"])
def test_a_frozen_file_that_is_no_longer_what_it_was_is_refused(made, noon, change):
    made.drop("a", "b")
    inputs = freeze(made.store)
    stored = made.store.read("drops/a/manifest.jsonl")
    if change == "edit":
        made.store.swap("drops/a/manifest.jsonl", stored.data + b'{"uri": "c.png"}\n', stored.tag)
    else:
        made.store.delete("drops/a/manifest.jsonl")
    with pytest.raises(InputError, match=r"^drops/a/manifest.jsonl .* when the round was planned.*; put it back$"):
        derive(made.store, made.settings, inputs, noon)


def test_what_came_after_freezing_is_not_seen(made, noon):
    made.drop("a", "b")
    inputs = freeze(made.store)
    made.drop("c", "d")
    made.label("1", b="cat")
    ledger = derive(made.store, made.settings, inputs, noon)
    assert pool(ledger) == ["b"]


def test_a_question_keeps_all_its_fields(made, noon):
    made.drop("a", "b")
    made.ask(3, "b")
    assert made.ledger().open_queries["b"] == Question(
        sample_id="b", uri="file:///b.png", round=3, rank=0, asked_at=noon
    )
