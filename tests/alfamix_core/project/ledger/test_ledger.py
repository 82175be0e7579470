"""What a sample is follows from the files; nothing is a flag."""

import itertools
from datetime import timedelta

import pytest

from alfamix_core.errors import InputError
from alfamix_core.project import layout, planning, rounds
from alfamix_core.project.ledger.ledger import audit_order, frozen_ledger
from alfamix_core.records.query import Question
from alfamix_core.records.round import Counts

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize("loaded", [False, True])
def test_every_state_is_derived_from_the_files_by_hand(made_anywhere, loaded):
    made = made_anywhere
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
    if loaded:
        made.load()
    ledger = made.ledger()
    assert made.pool() == ["j"]
    assert [question.sample_id for question in ledger.open_queries()] == ["b", "e"]
    assert ledger.quarantined() == {"h": 1}
    assert made.labels() == {"c": "cat", "g": "owl", "k": "cat", "l": "dog"}
    states = {"b": "queried", "d": "skipped", "e": "queried", "f": "disputed", "h": "quarantined", "i": "skipped"}
    states |= {"j": "pool", "m": "held_out", **dict.fromkeys("cgkl", "labelled")}
    assert made.states() == states
    assert ledger.counts() == Counts(
        samples=12, pool=1, queried=2, train=3, test=1, skipped=2, disputed=1, quarantined=1, held_out=1
    )
    assert ledger.decided() == 2


def test_a_labelled_sample_may_be_corrected_by_people(made, noon):
    made.drop("a", "b", label="cat")
    made.label("1", b="dog")
    assert made.labels() == {"b": "dog"}
    made.events("2", made.event("no", "b", kind="withdraw", annotator="ann", time=noon + HOUR))
    assert made.labels(noon + DAY) == {"b": "cat"}


def test_a_query_expires_after_its_days_and_the_sample_returns(made, noon):
    made.drop("a", "b", "c")
    made.ask(1, "b")
    assert made.states(noon + 30 * DAY - timedelta(seconds=1)) == {"b": "queried", "c": "pool"}
    assert made.states(noon + 30 * DAY) == {"b": "pool", "c": "pool"}


def test_a_late_answer_counts_and_closes_whatever_query_is_open(made, noon):
    made.drop("a", "b")
    made.ask(1, "b")
    made.ask(2, "b", at=noon + 40 * DAY)
    later = noon + 41 * DAY
    assert [question.round for question in made.ledger(later).open_queries()] == [2]
    made.events("late", made.event("late", "b", "owl", asked_in=1))
    assert made.ledger(later).open_queries() == []
    assert made.pool(later) == []
    rows = made.ledger(later).query("select label, label_round from states").to_pylist()
    assert rows == [{"label": "owl", "label_round": 1}]


def test_there_are_never_two_open_queries_for_a_sample(made, noon):
    made.drop("a", "b", "c")
    made.ask(1, "b", "c")
    made.configure(queue={"expires_after_days": 1})
    made.ask(2, "b", at=noon + 2 * DAY)
    made.configure(queue={"expires_after_days": 30})
    questions = made.ledger(noon + 3 * DAY).open_queries()
    assert [(question.sample_id, question.round) for question in questions] == [("c", 1), ("b", 2)]


def test_a_tie_keeps_the_same_query_open_until_too_many_have_answered(made):
    made.drop("a", "b")
    made.ask(1, "b")
    for annotator, label, state in (("x", "cat", "labelled"), ("y", "dog", "queried"), ("z", "owl", "disputed")):
        made.events(annotator, made.event(annotator, "b", label, annotator=annotator))
        assert made.states() == {"b": state}


@pytest.mark.parametrize(("name", "label"), [("a", "cat"), ("z", None)])
def test_a_sample_is_its_first_accepted_line_so_a_label_in_a_later_drop_is_no_label(made, noon, name, label):
    """In a load the first is the one whose file comes first by name; a sample that is loaded stays as it is."""
    made.drop("unlabelled", "b")
    made.drop(name, "b", label="cat")
    assert made.labels() == ({"b": label} if label else {})
    made.load()
    made.drop("0", "b", label="dog")
    made.load(noon + HOUR)
    assert made.labels() == ({"b": label} if label else {})


def test_a_sample_that_cannot_be_read_is_asked_no_longer(made):
    made.drop("a", "b")
    made.ask(1, "b")
    made.quarantine(2, "b")
    assert made.ledger().open_queries() == []


def test_events_about_samples_that_no_drop_has_delivered_wait_for_them(made, noon):
    made.drop("a", "b")
    made.label("1", c="cat")
    made.load()
    assert (made.ledger().unknown_answers(), made.labels()) == (1, {})
    made.drop("b", "c")
    made.load(noon + HOUR)
    assert (made.ledger().unknown_answers(), made.labels()) == (0, {"c": "cat"})


def test_the_pool_does_not_depend_on_the_order_in_which_drops_arrive(made):
    drops = {"x": "bd", "y": "ac", "z": "e"}
    for order in itertools.permutations(drops):
        for name in order:
            made.drop(name, *drops[name])
        assert made.pool() == list("abcde")
        for name in order:
            made.store.delete(layout.manifest(name))


def test_a_question_keeps_all_its_fields(made, noon):
    made.drop("a", "b")
    made.ask(3, "b")
    asked = Question(sample_id="b", uri="file:///b.png", round=3, rank=0, asked_at=noon)
    assert made.ledger().open_queries() == [asked]
    made.load()
    assert made.ledger().open_queries() == [asked]


def test_what_the_pool_says_of_a_sample_whether_it_is_new_and_on_the_map(made, noon):
    made.drop("a", "b", "c", group="g")
    made.load()
    versions = made.ledger().versions
    made.drop("z", "d")
    made.load(noon + HOUR)
    rows = made.ledger().pool(versions, 2).read_all().to_pylist()
    assert [(row["sample_id"], row["group"], row["new"]) for row in rows] == [
        *(("b", "g", False), ("c", "g", False), ("d", None, True)),
    ]
    assert sum(row["on_map"] for row in rows) == 2
    assert [row["new"] for row in made.ledger().pool({}, 0).read_all().to_pylist()] == [True] * 3


def test_the_labelled_are_those_with_a_label_and_say_the_place_of_its_class(made):
    made.drop("a", "b", label="owl", split="val", group="g")
    made.drop("b", "c", "d", "e")
    made.ask(3, "c")
    made.events("1", made.event("1", "c", "cat", asked_in=3))
    made.quarantine(4, "b")
    assert made.ledger().labelled().read_all().to_pylist() == [
        {
            **{"sample_id": "c", "uri": made.store.uri_of("files/c.png"), "label": 0},
            **{"split": "train", "group": None, "round": 3},
        }
    ]


# what is frozen, and what came since


def begun(made, holder, run_id, at):
    """Plan a round and commit it with no question; return its record."""
    record, _ = planning.begin(made.store, holder(run_id), at, force=True)
    made.commit(record.number, at)
    made.edit("lock.json", lambda data: data.replace(run_id.encode(), b"nobody"))
    return record


def test_what_came_after_freezing_is_not_seen_by_the_round(made_anywhere, holder, noon):
    made = made_anywhere
    made.drop("a", "b", "c")
    made.label("0", c="dog")
    record, _ = planning.begin(made.store, holder("run"), noon)
    made.drop("c", "d")
    made.label("1", b="cat")
    with frozen_ledger(made.store, record) as ledger:
        assert ledger.pool({}, 0).read_all()["sample_id"].to_pylist() == ["b"]
        assert ledger.counts() == record.counts


def test_ten_withdrawn_and_ten_new_are_not_nothing(made, noon):
    """A difference of totals would say that nothing happened."""
    ids = [f"s{n}" for n in range(20)]
    made.drop("a", *ids, label="cat")
    made.load()
    versions = made.ledger().versions
    made.drop("b", *(f"n{n}" for n in range(10)), label="dog")
    gone = "".join(f'{{"sample_id": "{key}", "time": "2026-03-01T12:00:00Z"}}\n' for key in ids[:10])
    made.store.create("withdrawn/1.jsonl", gone.encode())
    made.load(noon + HOUR)
    assert made.ledger().counts().train == 20
    assert made.ledger().new_labels(versions) == 10
    assert made.ledger().new_samples(versions) == 10
    assert made.ledger().new_drops(versions) == ["drops/b/manifest.jsonl"]


def test_a_corrected_label_is_new_and_one_that_was_confirmed_is_not(made, noon):
    made.drop("a", *"bcde", label="cat")
    made.label("1", b="dog", c="owl")
    made.load()
    versions = made.ledger().versions
    assert made.ledger().new_labels(versions) == 0
    later = {"time": noon + HOUR}
    made.events(
        "2",
        made.event("1", "b", "cat", **later),
        made.event("2", "c", "owl", **later),
        made.event("3", "d", "cat", **later),
        made.event("4", "e", kind="skip", **later),
    )
    made.load(noon + DAY)
    assert made.labels(noon + DAY) == {"b": "cat", "c": "owl", "d": "cat"}
    assert made.ledger(noon + DAY).new_labels(versions) == 1
    assert made.ledger(noon + DAY).touched(versions) == 4


def test_news_are_the_same_before_and_after_their_load(made, noon):
    made.drop("a", *"bcd")
    made.load()
    versions = made.ledger().versions
    made.label("1", b="cat")
    made.drop("z", "e", label="owl")

    def news():
        ledger = made.ledger(noon + DAY)
        return ledger.new_labels(versions), ledger.new_samples(versions), ledger.new_drops(versions)

    before = news()
    assert before == (2, 1, ["drops/z/manifest.jsonl"])
    made.load(noon + HOUR)
    assert news() == before


# names and classes


def test_samples_are_found_by_id_or_uri_even_withdrawn_ones(made):
    made.drop("a", "b", "c")
    made.store.create("withdrawn/1.jsonl", b'{"sample_id": "b", "time": "2026-03-01T12:00:00Z"}\n')
    ledger = made.ledger()
    uri = made.store.uri_of("files/b.png")
    assert ledger.ids_of(["c", uri, "x", "c"]) == {"c": "c", uri: "b"}
    assert ledger.known(["b", "c", "x"]) == {"b", "c"}
    assert ledger.withdrawn() == {"b"}


def test_a_class_that_labels_name_must_stay(made):
    made.drop("a", "b", label="cat")
    made.label("1", b="dog")
    made.load()
    made.configure(classes=["cat", "owl"])
    line = 'classes: "dog" must stay, since 1 labels name it; project.json has cat, owl'
    with pytest.raises(InputError, match=line):
        made.ledger().check_classes()


def test_a_place_in_the_audit_s_order_is_the_same_in_sql_and_here(made):
    ids = [f"s{n}" for n in range(300)]
    made.drop("a", *ids)
    for share in (0.1, 0.5):
        made.configure(audit={"share": share}, seed=3)
        reserve = {key for key, state in made.states().items() if state == "reserve"}
        assert reserve == {key for key in ids if audit_order(3, key) < share}


def test_a_round_whose_object_is_not_what_its_record_names_is_one_line(made):
    made.drop("a", "b")
    made.ask(1, "b")
    record = rounds.read(made.store, 1)[0]
    made.store.delete(layout.objects(1) + record.objects["questions"])
    with pytest.raises(InputError, match=r"^the questions of round 1 was removed: rounds/000001/objects/\w+ is gone$"):
        made.ledger()
