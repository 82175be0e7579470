"""The twin by hand: each rule once, with numbers that a reader can redo on paper."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.twin.formats import Settings
from tests.twin.history import History, SampleState, State, audit_place

PROJECT = "file:///project"
DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)
ONE = Settings()


def day(number: float) -> datetime:
    return DAY_0 + timedelta(days=number)


def lines(*records: dict) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def sample(name: str, **fields: object) -> dict:
    return {"uri": f"{name}.png", "id": name, **fields}


def event(name: str, label: str | None, who: str = "ann", at: float = 1, **fields: object) -> dict:
    """An event: a label, or ``label`` names another kind."""
    kind = label if label in ("skip", "cannot_label", "withdraw") else "label"
    known = {"label": label} if kind == "label" else {}
    common = {"event_id": f"{who}-{name}-{at}", "sample_id": name, "kind": kind, "annotator": who, "round": 0}
    return {**common, **known, "time": day(at).isoformat(), **fields}


def question(name: str, rank: int = 0, audit: bool = False) -> dict:
    return {"sample_id": name, "rank": rank, "audit": audit}


class Case:
    """A history whose files stay from load to load until they are replaced."""

    def __init__(self, settings: Settings = ONE):
        self.history, self.files, self.settings = History(PROJECT), {}, settings

    def load(self, at: float, **files: bytes | None) -> "Case":
        """Load on a day; ``drop_a``, ``labels_a``, ``withdrawn_a`` and ``released_a`` name files; None deletes."""
        for name, data in files.items():
            kind, _, stem = name.partition("_")
            key = f"drops/{stem}/manifest.jsonl" if kind == "drop" else f"{kind}/{stem}.jsonl"
            self.files.pop(key, None)
            if data is not None:
                self.files[key] = data
        self.history.load(day(at), self.files, self.settings)
        return self

    def commit(self, number: int, at: float, *questions: dict, quarantined: tuple[str, ...] = ()) -> "Case":
        self.history.commit(number, day(at), list(questions), list(quarantined))
        return self

    def state(self, at: float = 100) -> State:
        return self.history.state(day(at), self.settings)

    def sample(self, name: str = "a", at: float = 100) -> SampleState:
        return self.state(at).samples[name]


def state_after(settings: Settings, *events: dict, split: str = "train", label: str | None = None) -> SampleState:
    """What sample a is after these events, all loaded on day 50."""
    return (
        Case(settings).load(50, drop_one=lines(sample("a", split=split, label=label)), labels_x=lines(*events)).sample()
    )


# rule 1: samples


def test_the_first_line_of_the_first_file_by_key_names_a_sample():
    case = Case().load(1, drop_b=lines(sample("a", label="cat")), drop_a=lines(sample("a", uri="../a/a.png")))
    assert case.state().set_aside == {"drops/a/manifest.jsonl": 1}
    assert case.sample().label == "cat"
    case = Case(replace(ONE, prefixes=("file:///d",)))
    case.load(
        1, drop_b=lines(sample("a", uri="file:///d/a", label="cat")), drop_a=lines(sample("a", uri="file:///d/a"))
    )
    assert case.sample() == SampleState("pool", None, 0, "train"), "drops/a comes before drops/b, and has no label"


def test_an_earlier_load_goes_before_an_earlier_key():
    case = Case(replace(ONE, prefixes=("file:///d",)))
    case.load(1, drop_b=lines(sample("a", uri="file:///d/a", label="cat")))
    case.load(2, drop_a=lines(sample("a", uri="file:///d/a", label="dog")))
    assert case.sample().label == "cat"


def test_keys_are_in_the_order_of_their_bytes():
    """In UTF-8 Z is 5a, a is 61, é is c3 a9."""
    same = {"uri": "file:///d/a", "id": "a"}
    case = Case(replace(ONE, prefixes=("file:///d",)))
    case.load(1, drop_é=lines(same), drop_a=lines({**same, "label": "dog"}), drop_Z=lines({**same, "label": "owl"}))
    assert case.sample().label == "owl"


def test_a_known_id_with_another_uri_is_set_aside_alone():
    case = Case().load(1, drop_a=lines(sample("a"), sample("b"), sample("a", uri="other.png"), sample("c")))
    assert list(case.state().samples) == ["a", "b", "c"]
    assert case.state().lines_set_aside == {("drops/a/manifest.jsonl", 3)}
    assert case.state().set_aside == {}
    case.load(2, drop_b=lines(sample("a", label="cat"), sample("d")))
    assert case.sample().label is None, "the first one stays"
    assert ("drops/b/manifest.jsonl", 1) in case.state().lines_set_aside
    assert case.sample("d").state == "pool"


def test_the_default_id_is_the_beginning_of_the_uris_sha256():
    """`printf file:///project/drops/a/a.png | sha256sum` says the same."""
    case = Case().load(1, drop_a=lines({"uri": "a.png"}))
    assert list(case.state().samples) == ["36f75a41146787c1"]


# rule 2: files


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (b'{"uri": "b.png"', 2),
        (b'\n{"uri": 1}\n', 3),
        (b"[]\n", 2),
        (b'{"uri": "b.png", "colour": 1}\n', 2),
        (b'{"uri": "b.png", "label": "cow"}\n', 2),
        (b'{"uri": "b.png", "split": "audit"}\n', 2),
        (b'{"uri": "../b.png"}\n', 2),
        (b'{"uri": "/b.png"}\n', 2),
        (b'{"uri": "file:///elsewhere/b.png"}\n', 2),
        (b'{"uri": "b.png", "id": ".b"}\n', 2),
        (b'{"uri": "\xff.png"}\n', 2),
        (b'{"uri": "\\ud800.png"}\n', 2),
        (b'{"uri": "b.png", "group": "' + b"g" * (1 << 20) + b'"}\n', 2),
        (b"[" * 20_000 + b"\n", 2),
    ],
)
def test_one_bad_line_sets_the_whole_manifest_aside(bad: bytes, line: int):
    case = Case().load(1, drop_a=lines(sample("a")) + bad, drop_b=lines(sample("b")))
    assert case.state().set_aside == {"drops/a/manifest.jsonl": line}
    assert list(case.state().samples) == ["b"], "the rest of the project is loaded"


@pytest.mark.parametrize(
    "fields",
    [
        {"label": None},
        {"label": "cow"},
        {"kind": "skip"},
        {"kind": "maybe"},
        {"event_id": ""},
        {"annotator": "x" * 201},
        {"round": -1},
        {"round": True},
        {"round": 1.0},
        {"round": 2**31},
        {"time": "2026-01-01T00:00:00"},
        {"time": "yesterday"},
        {"why": "?"},
    ],
)
def test_one_bad_event_sets_the_whole_batch_aside(fields: dict):
    case = Case().load(1, drop_a=lines(sample("a")), labels_x=lines(event("a", "cat"), event("a", "cat") | fields))
    assert case.state().set_aside == {"labels/x.jsonl": 2}
    assert case.sample().state == "pool"


def test_a_repaired_file_is_loaded_and_its_events_count_from_then_on():
    """The batch came on day 1 and was repaired on day 5; an event dated day 9 counts as of day 5, before day 6."""
    case = Case().load(1, drop_a=lines(sample("a")), labels_x=lines(event("a", "cat", at=9)) + b"{")
    assert case.sample().state == "pool"
    case.load(5, labels_x=lines(event("a", "cat", at=9)), labels_y=None)
    assert case.state().set_aside == {}
    assert case.sample() == SampleState("train", "cat", 0, "train")
    case.load(7, labels_y=lines(event("a", "dog", at=6)))
    assert case.sample().label == "dog"


def test_a_truncated_file_takes_nothing_back():
    """Cut in the middle of a line the file is set aside, cut between two it only says less."""
    whole = lines(event("a", "cat"), event("b", "dog"))
    first = len(lines(event("a", "cat")))
    case = Case().load(1, drop_a=lines(sample("a"), sample("b")), labels_x=whole)
    for cut, aside in ((first + 7, {"labels/x.jsonl": 2}), (first, {}), (0, {})):
        case.load(2, labels_x=whole[:cut])
        assert case.state().set_aside == aside
        assert (case.sample("a").label, case.sample("b").label) == ("cat", "dog")


def test_a_file_that_grew_brings_its_new_lines_alone():
    case = Case().load(1, drop_a=lines(sample("a")), labels_x=lines(event("a", "cat", at=9)))
    case.load(3, drop_a=lines(sample("a"), sample("b")), labels_x=lines(event("a", "cat", at=9), event("b", "dog")))
    assert case.sample("b").label == "dog"
    case.load(4, labels_y=lines(event("a", "owl", at=2)))
    assert case.sample("a").label == "owl", "the event dated day 9 was first loaded on day 1, not on day 3"


def test_a_deleted_file_takes_nothing_back():
    case = Case().load(1, drop_a=lines(sample("a")), labels_x=lines(event("a", "cat")))
    case.load(2, drop_a=None, labels_x=None)
    assert case.sample().label == "cat"
    assert case.state().gone == {"drops/a/manifest.jsonl", "labels/x.jsonl"}


def test_a_deleted_bad_file_is_no_longer_set_aside():
    case = Case().load(1, drop_a=lines(sample("a")), labels_x=b"{")
    assert case.state().set_aside == {"labels/x.jsonl": 1}
    assert case.load(2, labels_x=None).state().set_aside == {}


def test_a_class_that_is_added_later_lets_a_file_in():
    case = Case().load(1, drop_a=lines(sample("a")), labels_x=lines(event("a", "cow", at=4)))
    assert case.state().set_aside == {"labels/x.jsonl": 1}
    case.settings = replace(ONE, classes=(*ONE.classes, "cow"))
    assert case.sample().state == "pool", "until the next load"
    assert case.load(2).sample().label == "cow"


def test_a_prefix_that_is_added_later_lets_a_manifest_in():
    case = Case().load(1, drop_a=lines(sample("a", uri="s3://far/away.png")))
    case.settings = replace(ONE, prefixes=("s3://far",))
    assert list(case.load(2).state().samples) == ["a"]


def test_a_prefix_that_is_taken_away_forgets_nothing():
    case = Case(replace(ONE, prefixes=("s3://far",))).load(1, drop_a=lines(sample("a", uri="s3://far/away.png")))
    case.settings = ONE
    assert case.load(2).state().set_aside == {}, "the file was loaded, and its bytes are the same"
    case.load(3, drop_a=lines(sample("a", uri="s3://far/away.png"), sample("b")))
    assert case.state().set_aside == {"drops/a/manifest.jsonl": 1}
    assert list(case.state().samples) == ["a"]


def test_a_manifest_that_waited_finds_its_id_taken():
    case = Case().load(1, drop_a=lines(sample("a")) + b"{", drop_b=None)
    case.load(2, drop_b=lines(sample("a", label="cat")))
    case.load(3, drop_a=lines(sample("a"), sample("b")))
    assert case.state().lines_set_aside == {("drops/a/manifest.jsonl", 1)}
    assert case.sample().label == "cat"


def test_other_files_are_none_of_the_inbox():
    case = Case()
    case.files = {
        "drops/a/note.txt": b"?",
        "labels/x.json": b"?",
        "drops/a/b/manifest.jsonl": b"?",
        "queue/x.jsonl": b"?",
    }
    assert case.load(1).state().set_aside == {}


def test_label_files_may_lie_in_folders():
    case = Case().load(1, drop_a=lines(sample("a")))
    case.files["labels/2026/ann's answers.jsonl"] = lines(event("a", "cat"))
    assert case.load(2).sample().label == "cat"


# rule 3: events


def test_equal_events_count_once_wherever_they_are():
    two = replace(ONE, answers=2)
    same = event("a", "cat")
    case = Case(two).load(1, drop_a=lines(sample("a")), labels_x=lines(same, same), labels_y=lines(same))
    assert case.sample().state == "pool"
    assert case.state().findings == set()


def test_a_moment_in_another_zone_is_the_same_moment():
    here = event("a", "cat", event_id="e")
    case = Case().load(2, drop_a=lines(sample("a")), labels_x=lines(here))
    case.load(
        3, labels_y=lines({**here, "time": "2026-01-02T05:30:00+05:30"}, {**here, "time": "2026-01-02T00:00:00Z"})
    )
    assert case.state().findings == set()


def test_two_annotators_who_number_alike_are_both_heard():
    events = [event("a", "cat", "ann", event_id="1"), event("b", "dog", "bob", event_id="1")]
    case = Case().load(2, drop_a=lines(sample("a"), sample("b")), labels_x=lines(*events))
    assert (case.sample("a").label, case.sample("b").label) == ("cat", "dog")
    assert case.state().findings == {"1"}


def test_the_last_event_of_an_annotator_stands():
    assert state_after(ONE, event("a", "cat", at=2), event("a", "dog", at=1)).label == "cat"


@pytest.mark.parametrize(
    ("one", "other", "stands"),
    [
        ({"event_id": "1"}, {"event_id": "2"}, "other"),
        ({"event_id": "10"}, {"event_id": "9"}, "other"),  # as texts
        ({"event_id": "e", "kind": "label"}, {"event_id": "e", "kind": "skip", "label": None}, "other"),
        ({"event_id": "e", "label": "cat"}, {"event_id": "e", "label": "dog"}, "other"),
        ({"event_id": "e", "round": 2}, {"event_id": "e", "round": 10}, "other"),
    ],
)
def test_of_equal_times_the_greater_event_stands(one: dict, other: dict, stands: str):
    events = [{**event("a", "cat"), **one}, {**event("a", "cat"), **other}]
    expected = events[1]
    for order in (events, events[::-1]):
        state = state_after(ONE, *order)
        assert (state.label, state.round) == (expected["label"], expected["round"])


def test_an_event_from_the_future_counts_as_of_the_moment_of_its_load():
    """A clock a year ahead: loaded on day 3, so an answer of day 4 corrects it, and one of day 2 does not."""
    case = Case().load(3, drop_a=lines(sample("a")), labels_x=lines(event("a", "cat", at=365)))
    assert case.load(5, labels_y=lines(event("a", "dog", at=2))).sample().label == "cat"
    assert case.load(6, labels_z=lines(event("a", "owl", at=4))).sample().label == "owl"


def test_of_two_events_from_the_future_in_one_load_the_later_one_stands():
    assert state_after(ONE, event("a", "cat", at=365), event("a", "dog", at=364)).label == "cat"


def test_an_event_at_the_very_moment_of_a_load_goes_before_one_from_the_future():
    assert state_after(ONE, event("a", "cat", at=50), event("a", "dog", at=51)).label == "dog"


def test_a_withdrawal_takes_the_answer_back_and_a_later_answer_counts_again():
    first, back, again = event("a", "cat", at=1), event("a", "withdraw", at=2), event("a", "dog", at=3)
    assert state_after(ONE, first, back).state == "pool"
    assert state_after(ONE, first, back, label="owl").label == "owl", "the manifest's label is there again"
    assert state_after(ONE, first, back, again).label == "dog"
    assert state_after(ONE, back, event("a", "cat", "bob", at=1)).label == "cat", "only the annotator's own"


def test_answers_may_come_before_their_sample():
    case = Case().load(1, labels_x=lines(event("a", "cat")))
    assert case.state().unknown == 1
    assert case.load(2, drop_a=lines(sample("a"))).sample().label == "cat"
    assert case.state().unknown == 0


# rule 4: trust


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_unasked_answer_counts_for_train_and_val_if_the_project_says_so(split: str):
    assert state_after(ONE, event("a", "cat"), split=split).label == "cat"
    assert state_after(replace(ONE, accept_unasked=False), event("a", "cat"), split=split).label is None


def test_an_unasked_answer_never_decides_a_test_sample():
    assert state_after(ONE, event("a", "cat"), split="test") == SampleState("held_out", None, 0, "test")
    assert state_after(ONE, event("a", "cat"), split="test", label="dog").label == "dog"


def test_every_answer_about_an_asked_sample_counts_even_an_earlier_one():
    case = Case(replace(ONE, accept_unasked=False))
    case.load(1, drop_a=lines(sample("a")), labels_x=lines(event("a", "cat")))
    assert case.sample().state == "pool"
    assert case.commit(1, 2, question("a")).sample() == SampleState("train", "cat", 0, "train")


def test_an_unasked_answer_about_the_audit_counts_once_it_is_asked():
    case = Case(replace(ONE, audit_share=0.999999)).load(
        1, drop_a=lines(sample("a")), labels_x=lines(event("a", "cat"))
    )
    assert case.sample() == SampleState("held_out", None, 0, "audit")
    assert case.commit(1, 2, question("a", audit=True)).sample() == SampleState("audit", "cat", 0, "audit")


def test_a_question_of_a_round_that_is_not_committed_asked_nothing():
    case = Case(replace(ONE, accept_unasked=False))
    case.load(1, drop_a=lines(sample("a")), labels_x=lines(event("a", "cat", round=1)))
    case.history.plan(1)
    assert case.sample().state == "pool"


# rule 5: verdicts


def votes(*labels: str, at: float = 1) -> list[dict]:
    return [event("a", label, f"annotator-{index}", at) for index, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("settings", "labels", "state"),
    [
        ({"answers": 2}, "cat", "pool"),
        ({"answers": 2}, "cat cat", "train"),
        ({"answers": 2}, "cat dog", "pool"),  # 1 of 2 is not more than half
        ({"answers": 2}, "cat dog cat", "train"),  # 2 of 3
        ({"answers": 2}, "cat dog owl", "disputed"),  # 3 answers are the most
        ({"answers": 2, "max_answers": 4}, "cat dog owl", "pool"),
        ({"answers": 2, "max_answers": 4}, "cat cat dog dog", "disputed"),
        ({"answers": 2, "max_answers": 4}, "cat cat dog dog cat", "train"),  # disputed, then decided: 3 of 5
        ({"answers": 1, "max_answers": 1}, "cat dog", "disputed"),
        ({"answers": 1}, "skip", "skipped"),
        ({"answers": 1}, "cannot_label", "skipped"),
        ({"answers": 2}, "skip cannot_label", "pool"),  # two different answers
        ({"answers": 2}, "skip skip cat", "skipped"),
        ({"agreement": 2}, "cat", "pool"),
        ({"agreement": 2}, "cat cat", "train"),
        ({"agreement": 2, "max_answers": 5}, "cat cat dog owl", "train"),  # 2 of 4: no majority, but agreed
        ({"agreement": 2, "max_answers": 5}, "cat cat dog dog", "pool"),
        ({"agreement": 2, "max_answers": 4}, "cat cat dog dog", "disputed"),
        ({"agreement": 1}, "cat dog", "pool"),
        ({"agreement": 1, "answers": 3}, "cat cat", "pool"),  # two of three answers are there
        ({"answers": 3, "max_answers": 2}, "cat dog", "pool"),  # max_answers below answers disputes nothing yet
    ],
)
def test_verdicts_by_hand(settings: dict, labels: str, state: str):
    assert state_after(replace(ONE, **settings), *votes(*labels.split())).state == state


def test_the_round_is_the_greatest_of_those_who_agree():
    events = [event("a", "cat", "ann", round=2), event("a", "cat", "bob", round=4), event("a", "dog", "eve", round=9)]
    assert state_after(replace(ONE, answers=3), *events) == SampleState("train", "cat", 4, "train")


def test_an_answer_that_was_replaced_has_no_round():
    events = [event("a", "cat", at=1, round=9), event("a", "cat", at=2, round=3)]
    assert state_after(ONE, *events).round == 3


# rule 6: labels


def test_what_annotators_agree_on_outweighs_the_manifest():
    assert state_after(ONE, event("a", "dog"), label="cat").label == "dog"
    assert state_after(ONE, event("a", "skip"), label="cat") == SampleState("skipped", None, 0, "train")
    two = replace(ONE, answers=2)
    assert state_after(two, event("a", "dog"), label="cat").label == "cat", "one answer of two decides nothing"
    assert state_after(two, *votes("cat", "dog", "owl"), label="cat").state == "disputed"


# rule 7: quarantine and withdrawal


def test_released_until_a_later_round_cannot_read_it_either():
    case = Case().load(1, drop_a=lines(sample("a")))
    assert case.commit(2, 2, quarantined=("a",)).sample().state == "quarantined"
    case.load(3, released_x=lines({"sample_id": "a", "round": 1, "time": day(3).isoformat()}))
    assert case.sample().state == "quarantined", "round 1 is not the one that could not read it"
    case.load(4, released_y=lines({"sample_id": "a", "round": 2, "time": day(4).isoformat()}))
    assert case.sample().state == "pool"
    assert case.commit(3, 5, quarantined=("a",)).sample().state == "quarantined"
    assert case.commit(4, 6).sample().state == "quarantined"


def test_a_quarantined_sample_keeps_its_label_and_is_counted_once():
    case = Case().load(1, drop_a=lines(sample("a", label="cat"))).commit(1, 2, quarantined=("a",))
    assert case.sample() == SampleState("quarantined", "cat", 0, "train")
    assert {name: count for name, count in case.state().counts.items() if count} == {"samples": 1, "quarantined": 1}


def test_a_withdrawn_sample_stays_withdrawn():
    gone = lines({"sample_id": "a", "reason": "consent", "time": day(2).isoformat()})
    case = Case().load(1, withdrawn_x=gone).load(2, drop_a=lines(sample("a", label="cat"), sample("b")))
    case.load(3, withdrawn_x=None, labels_x=lines(event("a", "cat")))
    assert case.sample().state == "withdrawn"
    assert case.state().counts["samples"] == 2
    assert case.state().counts["withdrawn"] == 1
    assert case.state().counts["train"] == 0


# rule 8: the audit


def test_the_audit_takes_those_of_the_train_split_whose_place_is_below_its_share():
    """The place is the first 12 hex digits of the SHA-256 of audit/<seed>/<id>, over 16^12."""
    assert audit_place(0, "a") == 0x7EB6C6CA30D0 / 16**12
    places = {name: audit_place(0, name) for name in "abcdefgh"}
    share = sorted(places.values())[3] + 1e-9
    case = Case(replace(ONE, audit_share=share)).load(1, drop_a=lines(*map(sample, places), sample("z", split="val")))
    inside = {name for name, sample in case.state().samples.items() if sample.split == "audit"}
    assert inside == {name for name, place in places.items() if place < share}
    assert len(inside) == 4
    assert case.state().reserve == sorted(inside, key=places.__getitem__)
    assert case.state().pool == sorted(set(places) - inside)


def test_the_newest_question_says_whether_a_sample_is_in_the_audit():
    case = Case(replace(ONE, audit_share=0.999999)).load(1, drop_a=lines(sample("a"), sample("t", split="test")))
    case.commit(1, 2, question("a", audit=False), question("t", audit=True))
    assert case.sample().split == "train", "what a strategy asked for never comes into the audit"
    assert case.sample("t").split == "test", "only the train split gives to the audit"
    case.commit(2, 3, question("a", rank=1, audit=True), question("a", rank=0, audit=False))
    assert case.sample().split == "audit", "rank 1 is newer than rank 0"
    case.settings = ONE
    assert case.sample().split == "audit", "whatever becomes of the share"


# rules 9 to 11: queries, pool, counts


def test_a_query_is_open_until_it_expires():
    case = Case().load(1, drop_a=lines(sample("a"), sample("b"))).commit(1, 2, question("a", 5))
    assert case.sample(at=31.9) == SampleState("queried", None, 0, "train", (1, 5))
    assert case.state(31.9).open_rounds == {1}
    assert case.state(31.9).pool == ["b"]
    assert case.sample(at=32).state == "pool", "asked exactly 30 days ago is expired"
    assert case.commit(2, 40, question("a")).sample(at=41).question == (2, 0)


def test_a_query_ends_with_an_answer_a_withdrawal_or_a_quarantine():
    case = (
        Case(replace(ONE, answers=2))
        .load(1, drop_a=lines(*map(sample, "abcdef")))
        .commit(1, 2, *map(question, "abcdef"))
    )
    case.load(
        3,
        labels_x=lines(event("a", "cat"), event("a", "cat", "bob"), event("b", "cat"), event("c", "skip")),
        labels_y=lines(event("c", "skip", "bob")),
        withdrawn_x=lines({"sample_id": "d", "time": day(2).isoformat()}),
    )
    case.commit(2, 3, quarantined=("e",))
    states = {name: sample.state for name, sample in case.state(4).samples.items()}
    assert states == {
        **{"a": "train", "b": "queried", "c": "skipped"},
        **{"d": "withdrawn", "e": "quarantined", "f": "queried"},
    }


def test_every_sample_is_counted_once():
    case = Case(replace(ONE, answers=1, max_answers=2)).load(
        1,
        drop_a=lines(
            *(sample("a"), sample("b", label="cat"), sample("c", split="val", label="cat"), sample("d", split="val")),
            *(sample("e", split="test", label="cat"), sample("f"), sample("g"), sample("h"), sample("i"), sample("j")),
        ),
        labels_x=lines(event("f", "skip"), event("g", "cat"), event("g", "dog", "bob")),
        withdrawn_x=lines({"sample_id": "h", "time": day(1).isoformat()}),
    )
    case.commit(1, 2, question("i"), quarantined=("j",))
    assert case.state(3).counts == {
        **{"samples": 10, "withdrawn": 1, "quarantined": 1, "train": 1, "val": 1, "test": 1, "audit": 0},
        **{"skipped": 1, "disputed": 1, "queried": 1, "pool": 1, "reserve": 0, "held_out": 1},
    }


# rule 12: what is new


def test_new_labels_are_those_that_are_other_than_they_were():
    """Ten withdrawn and ten imported are ten new labels, not nothing."""
    old, new = [f"old-{n}" for n in range(10)], [f"new-{n}" for n in range(10)]
    case = Case().load(
        1, drop_a=lines(*(sample(name, label="cat") for name in old), sample("x"), sample("y", label="dog"))
    )
    case.history.plan(1)
    assert case.history.new_labels(1, ONE) == set()
    case.load(
        3,
        drop_b=lines(*(sample(name, label="cat") for name in new)),
        withdrawn_x=lines(*({"sample_id": name, "time": day(3).isoformat()} for name in old)),
    )
    assert case.history.new_labels(1, ONE) == set(new)
    assert case.history.new_samples(1) == set(new)
    case.load(4, labels_x=lines(event("x", "cat"), event("y", "owl")))
    assert case.history.new_labels(1, ONE) == {*new, "x", "y"}, "a label that was corrected is new"
    case.load(5, labels_y=lines(event("y", "dog", at=2), event("x", "skip", at=2)))
    assert case.history.new_labels(1, ONE) == set(new), "a label that is as it was is not, nor is one that is gone"


def test_an_abandoned_round_is_no_point_of_comparison():
    case = Case().load(1, drop_a=lines(sample("a")))
    case.history.plan(1)
    case.load(2, labels_x=lines(event("a", "cat")))
    case.history.plan(2)
    case.history.abandon(2)
    assert case.history.new_labels(1, ONE) == {"a"}
    with pytest.raises(KeyError):
        case.history.new_labels(2, ONE)


def test_a_label_that_the_round_itself_brought_is_new_for_the_next():
    case = Case().load(1, drop_a=lines(sample("a")))
    case.history.plan(1)
    case.commit(1, 2, question("a")).load(3, labels_x=lines(event("a", "cat", round=1)))
    assert case.history.new_labels(1, ONE) == {"a"}
    assert case.sample().round == 1


def test_a_question_alone_brings_no_new_label():
    """The answer was there when round 1 was planned and nobody had asked; that round asks, and its answer counts."""
    case = Case(replace(ONE, accept_unasked=False)).load(
        1, drop_a=lines(sample("a")), labels_x=lines(event("a", "cat"))
    )
    case.history.plan(1)
    case.commit(1, 2, question("a"))
    assert case.sample().label == "cat"
    assert case.history.new_labels(1, case.settings) == set()
    assert case.load(3, labels_y=lines(event("a", "cat", "bob"))).history.new_labels(1, case.settings) == {"a"}
