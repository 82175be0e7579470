"""The annotator who knows."""

import random

import pytest

from alfamix_core.errors import InputError
from alfamix_core.queues.oracle import answer, read_truth

CLASSES = ("cat", "dog", "猫")
MANY = [f"s{number}" for number in range(2_000)]


def test_truth_is_read_with_or_without_a_mark_at_the_beginning():
    for encoding in ("utf-8", "utf-8-sig"):
        assert read_truth("label,sample_id\r\n猫,a\r\ncat,b\r\ncat,b\r\n".encode(encoding), "t.csv", CLASSES) == {
            "a": "猫",
            "b": "cat",
        }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t.csv must have the columns sample_id and label, not None"),
        ("id,label\n", r"t.csv must have the columns sample_id and label, not \['id', 'label'\]"),
        ("sample_id,label\na,owl\n", 't.csv line 2: label "owl" is not a class; the classes are cat, dog, 猫'),
        ("sample_id,label\na,cat\na,dog\n", 't.csv line 3: sample "a" has two labels'),
        ('sample_id,label\n"a', r"t.csv must be UTF-8 CSV: "),
        (b"\xff", r"t.csv must be UTF-8 CSV: "),
    ],
)
def test_a_bad_file_of_truth_is_refused_with_its_line(text, message):
    with pytest.raises(InputError, match=message):
        read_truth(text if isinstance(text, bytes) else text.encode(), "t.csv", CLASSES)


def test_without_noise_every_known_answer_is_given_and_unknown_ones_stay_open(question, noon):
    events = answer(
        [question("b", 2, 1), question("a", 2, 0), question("x", 1, 0)], {"a": "cat", "b": "dog"}, CLASSES, seed=0
    )
    assert [(event.sample_id, event.label, event.round, event.event_id) for event in events] == [
        ("a", "cat", 2, "oracle-2-a"),
        ("b", "dog", 2, "oracle-2-b"),
    ]
    assert {(event.annotator, event.kind, event.time) for event in events} == {("oracle", "label", noon)}


def test_the_same_seed_gives_the_same_answers_in_any_order_and_beside_any_others(question):
    questions = [question(key, 1, rank) for rank, key in enumerate(MANY[:200])]
    truth = dict.fromkeys(MANY, "cat")
    settings = {"seed": 3, "noise": 0.4, "skip": 0.2}
    events = answer(questions, truth, CLASSES, **settings)
    shuffled = random.Random(1).sample(questions, len(questions))
    assert answer(shuffled, truth, CLASSES, **settings) == events
    assert answer(questions[:50], truth, CLASSES, **settings) == events[:50]
    assert answer(questions, truth, CLASSES, **(settings | {"seed": 4})) != events


def test_noise_and_skips_have_their_shares_and_mistakes_are_spread_over_the_other_classes(question):
    """Of 2,000 a quarter is skipped, and 40 % of the rest is wrong: 500 and 600, each within 4 standard deviations."""
    questions = [question(key, 1, rank) for rank, key in enumerate(MANY)]
    events = answer(questions, dict.fromkeys(MANY, "cat"), CLASSES, seed=1, noise=0.4, skip=0.25)
    skipped = [event for event in events if event.kind == "skip"]
    dogs, others = ([event for event in events if event.label == label] for label in ("dog", "猫"))
    assert abs(len(skipped) - 500) < 80
    assert abs(len(dogs) + len(others) - 600) < 82
    assert abs(len(dogs) - len(others)) < 100


@pytest.mark.parametrize(("fields", "expected"), [({"noise": 1.0}, {"dog", "猫"}), ({"skip": 1.0}, {None})])
def test_all_wrong_and_all_skipped(question, fields, expected):
    questions = [question(key, 1, rank) for rank, key in enumerate(MANY[:100])]
    events = answer(questions, dict.fromkeys(MANY, "cat"), CLASSES, seed=1, **fields)
    assert {event.label for event in events} == expected
