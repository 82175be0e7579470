"""Questions out as CSV, answers in."""

import csv
import io
import itertools
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from alfamix_core.project import layout
from alfamix_core.project.ledger.ledger import Ledger
from alfamix_core.project.ledger.queries import connect, scratch
from alfamix_core.project.ledger.tables import Tables
from alfamix_core.queues.builtin import add_answers
from alfamix_core.queues.exchange import COLUMNS, answers_from_csv, questions_csv
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.tables import SCHEMAS

CLASSES = ("cat", "Großtrappe, männlich", "猫")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def ledger_of(questions, *ids):
    """Open a ledger of samples and questions, without a project."""
    rows = {
        "samples": [
            {"sample_id": key, "uri": f"file:///{key}", "split": "train", "key": "", "line": 1, "load": 1}
            for key in ids
        ],
        "questions": [question.model_dump() | {"load": 1} for question in questions],
    }
    with scratch() as folder, connect(Path(folder)) as con:
        for name, schema in SCHEMAS.items():
            con.register(name, pa.Table.from_pylist(rows.get(name, []), schema=schema))
        yield Ledger(con, Project(name="p", classes=CLASSES), NOON, Tables({}))


@pytest.fixture
def ledger(question):
    """Samples a, b, c; a is asked in round 3."""
    with ledger_of([question("a", 3)], *"abc") as ledger:
        yield ledger


def read(ledger, text, annotator="ann"):
    data = text if isinstance(text, bytes) else text.encode()
    return answers_from_csv(data, "answers.csv", ledger, CLASSES, annotator, NOON)


def test_questions_are_written_best_first_within_a_round(question):
    questions = [
        question("x", 2, 0, suggestion="猫"),
        question("y", 1, 1, uri='s3://b/a, "quoted".png', thumbnail="rounds/000001/objects/ab12"),
        question("z", 1, 0),
    ]
    assert questions_csv(questions, "file:///p/").splitlines() == [
        "sample_id,uri,thumbnail,suggestion,round,label",
        "z,file:///z.png,,,1,",
        'y,"s3://b/a, ""quoted"".png",file:///p/rounds/000001/objects/ab12,,1,',
        "x,file:///x.png,,猫,2,",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_was_exported_is_imported_when_it_is_filled_in(question, ledger, encoding, line_end):
    rows = list(
        csv.DictReader(io.StringIO(questions_csv([question(key, 3, rank) for rank, key in enumerate("abc")], "/")))
    )
    for row, label in zip(rows, CLASSES, strict=True):
        row["label"] = label
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator=line_end)
    writer.writeheader()
    writer.writerows(rows)
    _, events = read(ledger, out.getvalue().encode(encoding))
    assert [(event.sample_id, event.label, event.round, event.kind) for event in events] == [
        ("a", CLASSES[0], 3, "label"),
        ("b", CLASSES[1], 3, "label"),
        ("c", CLASSES[2], 3, "label"),
    ]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_any_text_survives_the_way_out(suggestion):
    asked = Question(sample_id="s", uri="file:///s", round=1, rank=0, suggestion=suggestion, asked_at=NOON)
    rows = list(csv.DictReader(io.StringIO(questions_csv([asked], "/"), newline="")))
    assert [row["suggestion"] for row in rows] == [suggestion]


def test_rows_without_an_answer_are_left_out_and_defaults_are_filled_in(ledger):
    batch, events = read(ledger, "sample_id,label\na,cat\nb,\n\nc, 猫 \n")
    digest = batch.removeprefix("import-")
    assert events == [
        LabelEvent(
            event_id=f"{digest}-000000002",
            sample_id="a",
            kind="label",
            label="cat",
            annotator="ann",
            round=3,
            time=NOON,
        ),
        LabelEvent(
            event_id=f"{digest}-000000005", sample_id="c", kind="label", label="猫", annotator="ann", round=0, time=NOON
        ),
    ]


def test_every_kind_annotator_time_and_round_may_be_said(ledger):
    _, events = read(
        ledger,
        "sample_id,label,kind,annotator,time,round\n"
        "a,,skip,bob,2026-03-01T14:00:00+02:00,0\n"
        "b,,cannot_label,,,\n"
        "c,,withdraw,,2026-03-01T11:00:00Z,\n"
        "c,cat,label,,2026-03-01T12:00:00Z,\n",
    )
    assert [(event.kind, event.annotator, event.round) for event in events] == [
        ("skip", "bob", 0),
        ("cannot_label", "ann", 0),
        ("withdraw", "ann", 0),
        ("label", "ann", 0),
    ]
    assert events[0].time == NOON


def test_a_file_that_is_imported_again_after_another_answer_counts_again(made, noon):
    """A, then B, then A: the last import is the person's last word, and repeating any of them has no effect."""
    made.drop("a", "x", "y")
    texts = {"cat": b"sample_id,label\nx,cat\ny,cat\n", "dog": b"sample_id,label\nx,dog\n"}

    def load(label, minutes):
        now = noon + timedelta(minutes=minutes)
        batch, events = answers_from_csv(texts[label], "a.csv", made.ledger(now), ("cat", "dog"), "ann", now)
        if made.store.entry(layout.labels(batch)) is None:
            add_answers(made.store, batch, events)
        made.load(now)
        return batch, made.labels(now)["x"]

    steps = [load(label, minutes) for minutes, label in enumerate("cat cat dog dog cat cat dog cat".split())]
    assert [label for _, label in steps] == "cat cat dog dog cat cat dog cat".split()
    assert len({batch for batch, _ in steps}) == 5
    assert made.labels(noon + timedelta(hours=1))["y"] == "cat"


def test_a_file_that_says_when_it_was_answered_stays_where_it_is_in_time(made, noon):
    made.drop("a", "x")
    old = b"sample_id,label,time\nx,cat,2026-02-01T00:00:00Z\n"
    for text in (old, b"sample_id,label\nx,dog\n", old):
        batch, events = answers_from_csv(text, "a.csv", made.ledger(noon), ("cat", "dog"), "ann", noon)
        if made.store.entry(layout.labels(batch)) is None:
            add_answers(made.store, batch, events)
        made.load(noon)
    assert made.labels(noon) == {"x": "dog"}


@pytest.mark.parametrize(
    ("rows", "first", "second"),
    [
        (["a,cat,ann,,", "a,猫,ann,,"], 2, 3),
        (["a,cat,,,", "b,cat,,,", "a,猫,ann,,"], 2, 4),
        (["a,cat,ann,,", "a,,ann,,skip"], 2, 3),
        (["a,cat,ann,,", "a,,ann,,withdraw"], 2, 3),
        (["a,cat,ann,2026-03-01T11:00:00Z,", "a,猫,ann,2026-03-01T12:00:00+01:00,"], 2, 3),
        (["a,cat,ann,2026-03-01T11:00:00Z,", "a,猫,ann,,"], 2, 3),
        (["a,猫,ann,,", "a,cat,ann,2027-03-01T11:00:00Z,"], 2, 3),
        (["a,,,,", "", "a,cat,ann,2026-03-01T10:00:00Z,", "a,猫,ann,2026-03-01T11:00:00Z,", "a,猫,ann,,"], 4, 6),
    ],
)
def test_two_answers_of_one_annotator_about_one_sample_are_refused_with_both_lines(ledger, rows, first, second):
    with pytest.raises(InputError) as refused:
        read(ledger, "\n".join(["sample_id,label,annotator,time,kind", *rows, ""]))
    assert str(refused.value).startswith(f'answers.csv lines {first} and {second}: annotator "ann" answers "')
    assert '" about sample "a"; keep one row' in str(refused.value)


def test_equal_rows_count_once_and_other_annotators_and_times_are_other_answers(ledger):
    rows = "a,cat,,\na,cat,ann,\na,猫,bob,\nb,cat,,2026-03-01T10:00:00Z\nb,猫,,2026-03-01T11:00:00Z\na,cat,,\n"
    _, events = read(ledger, "sample_id,label,annotator,time\n" + rows)
    assert [(event.sample_id, event.label, event.annotator) for event in events] == [
        ("a", "cat", "ann"),
        ("a", "猫", "bob"),
        ("b", "cat", "ann"),
        ("b", "猫", "ann"),
    ]


def test_event_ids_sort_as_their_lines_do(ledger):
    _, events = read(ledger, "sample_id,label,annotator\n" + "".join(f"a,cat,ann{n}\n" for n in range(120)))
    ids = [event.event_id for event in events]
    assert ids == sorted(ids)
    assert len(set(ids)) == 120


_TIMES = ["", "2026-02-01T00:00:00Z", "2026-03-01T13:00:00+01:00", "2026-03-01T12:01:00Z", "2999-01-01T00:00:00Z"]
_SHEET_ROW = st.tuples(
    st.sampled_from("xy"),
    st.sampled_from(["cat", "dog", ""]),
    st.sampled_from(["", "skip", "withdraw", "label"]),
    st.sampled_from(["", "ann", "bob "]),
    st.sampled_from(_TIMES),
)
_SHEET = st.lists(_SHEET_ROW, min_size=1, max_size=6)


def test_importing_a_file_twice_has_no_effect_whatever_it_holds(made, noon):
    """The second import, right away or after a load, names the batch of the first."""
    made.drop("a", "x", "y")
    minutes = itertools.count()

    def load(sheet):
        now = noon + timedelta(minutes=next(minutes))
        text = "sample_id,label,kind,annotator,time\n" + "".join(",".join(row) + "\n" for row in sheet)
        batch, events = answers_from_csv(text.encode(), "a.csv", made.ledger(now), ("cat", "dog"), "ann", now)
        is_new = made.store.entry(layout.labels(batch)) is None and bool(events)
        if is_new:
            add_answers(made.store, batch, events)
        return is_new

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(_SHEET, min_size=1, max_size=2), st.booleans())
    def check(sheets, loaded):
        for sheet in sheets:
            try:
                load(sheet)
            except InputError:
                continue
            for _ in range(2):
                if loaded:
                    made.load(noon + timedelta(minutes=next(minutes)))
                assert not load(sheet)

    check()


def test_two_annotators_who_agree_on_everything_bring_two_batches(ledger):
    text = "sample_id,label\na,cat\n"
    (anns, (his,)), (bobs, (hers,)) = read(ledger, text, "ann"), read(ledger, text, "bob")
    assert (anns, his.event_id) != (bobs, hers.event_id)
    assert read(ledger, text, "ann")[0] == anns, "importing a file twice is importing it once"
    assert read(ledger, text)[0] != read(ledger, text + "b,cat\n")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'answers.csv: the column "sample_id" is missing; it has none'),
        ("sample_id,class\na,cat\n", 'answers.csv: the column "label" is missing; it has sample_id, class'),
        (
            "sample_id,label,who\na,cat,me\n",
            'answers.csv: unknown column "who"; known are annotator, kind, label, round, sample_id, suggestion, '
            "thumbnail, time, uri",
        ),
        ("sample_id,label,label\na,cat,dog\n", 'answers.csv: the column "label" is there twice'),
        ("sample_id,label\nz,cat\n", 'answers.csv line 2: sample "z" is in no drop of the project'),
        (
            "sample_id,label\na,cat\nb,Cat\n",
            'answers.csv line 3: label "Cat" is not a class; the classes are Großtrappe, männlich, cat, 猫',
        ),
        ("sample_id,label,round\nb,cat,3\na,cat,7\n", "answers.csv line 3: round 7 has asked no question"),
        ("sample_id,label\na\n", "answers.csv line 2 has another number of fields than the header's 2"),
        ("sample_id,label\na,cat,dog\n", "answers.csv line 2 has another number of fields than the header's 2"),
        ("sample_id,label,kind\na,cat,skip\n", 'answers.csv line 2: kind "skip" has no label'),
        ("sample_id,label,kind\na,,label\n", 'answers.csv line 2: kind "label" needs a label'),
        (b"sample_id,label\na,\xff\n", "answers.csv must be UTF-8 text: invalid start byte at byte 18"),
        ('"sample_id"x,label\n', "answers.csv line 1: ',' expected after '\"'"),
        ('sample_id,label\n"a"x,cat\n', "answers.csv line 2: ',' expected after '\"'"),
        ('sample_id,label\n"a,cat\n', "answers.csv line 2: unexpected end of data"),
    ],
)
def test_bad_answers_are_refused_with_their_line(ledger, text, message):
    with pytest.raises(InputError) as refused:
        read(ledger, text)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    "row", ["a,,dunno,,", "a,cat,label,,2026-03-01", "a,cat,label,,yesterday", "a,cat,label,-1,", "a,cat,label,one,"]
)
def test_a_field_that_cannot_be_read_is_named_with_its_line(ledger, row):
    with pytest.raises(InputError, match=r'^answers.csv line 2: field "(kind|round|time)" '):
        read(ledger, f"sample_id,label,kind,round,time\n{row}\n")


def test_no_file_whatever_it_holds_is_more_than_an_input_error():
    with ledger_of([], "a") as ledger:

        @given(st.binary(max_size=60))
        def check(data):
            for content in (data, b"sample_id,label,kind,time\n" + data, b"sample_id,label\na," + data):
                message = "answers.csv"
                try:
                    answers_from_csv(content, "answers.csv", ledger, ("cat",), "ann", NOON)
                except InputError as error:
                    message = str(error)
                assert message.startswith("answers.csv")

        check()
