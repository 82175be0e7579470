"""What holds for every queue; a new file in alfamix_core/queues fails here until it has an entry."""

import csv
import io
import json
import random
import re
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from alfamix_core.errors import InputError
from alfamix_core.project.ledger.ledger import Ledger
from alfamix_core.project.ledger.queries import connect, scratch
from alfamix_core.project.ledger.tables import Tables
from alfamix_core.queues import exchange
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.project import Project
from alfamix_core.records.query import Question
from alfamix_core.records.tables import SCHEMAS

ROOT = Path(__file__).parent.parent.parent.parent
CLASSES = ("cat", "Großtrappe, männlich", "猫")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOT_FORMATS = {"__init__", "builtin", "oracle"}  # where answers are added, and who gives them in simulations


@dataclass(frozen=True)
class Format:
    """A queue's two functions, and how a person fills in its file: the text and the answers give another text."""

    write: Callable[[Iterable[Question], str], str]
    read: Callable[..., tuple[str, list[LabelEvent]]]
    fill: Callable[[str, Mapping[str, str]], str]


def fill_csv(text: str, answers: Mapping[str, str]) -> str:
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys())
    writer.writeheader()
    writer.writerows(row | {"label": answers.get(row["sample_id"], "")} for row in rows)
    return out.getvalue()


def fill_json_lines(text: str, answers: Mapping[str, str]) -> str:
    lines = [json.loads(line) for line in text.splitlines()]
    return "".join(json.dumps(line | {"label": answers.get(line["sample_id"])}) + "\n" for line in lines)


def from_the_page() -> types.ModuleType:
    """The queue that docs/add-a-queue.md builds."""
    page = (ROOT / "docs" / "add-a-queue.md").read_text("utf-8")
    module = types.ModuleType("json_lines")
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), module.__dict__)
    return module


_PAGE = from_the_page()
FORMATS = {"exchange": Format(exchange.questions_csv, exchange.answers_from_csv, fill_csv)}
EXAMPLE = {"docs/add-a-queue.md": Format(_PAGE.write_questions, _PAGE.read_answers, fill_json_lines)}
ALL = FORMATS | EXAMPLE


@pytest.fixture(params=ALL.values(), ids=ALL.keys())
def form(request: pytest.FixtureRequest) -> Format:
    return request.param


@pytest.fixture
def questions(question) -> list[Question]:
    """Three questions of two rounds; their order among all is c, b, a."""
    return [
        question("a", 2, 1, suggestion="猫"),
        question("b", 2, 0, uri='s3://b/x, "quoted".png', thumbnail="rounds/000002/objects/ab12"),
        question("c", 1, 5),
    ]


@contextmanager
def ledger_of(*ids: str):
    """Open a ledger of samples, without a project."""
    fields = {"split": "train", "key": "", "line": 1, "load": 1}
    rows = [{"sample_id": sample_id, "uri": f"file:///{sample_id}", **fields} for sample_id in ids]
    asked = [
        Question(sample_id="other", uri="file:///other", round=number, rank=0, asked_at=NOON).model_dump() | {"load": 1}
        for number in (1, 2)
    ]
    tables = {"samples": rows, "questions": asked}
    with scratch() as folder, connect(Path(folder)) as con:
        for name, schema in SCHEMAS.items():
            con.register(name, pa.Table.from_pylist(tables.get(name, []), schema=schema))
        yield Ledger(con, Project(name="p", classes=CLASSES), NOON, Tables({}))


def read(form: Format, text: str | bytes, annotator: str = "ann") -> tuple[str, list[LabelEvent]]:
    data = text if isinstance(text, bytes) else text.encode()
    with ledger_of("a", "b", "c") as ledger:
        return form.read(data, "answers", ledger, CLASSES, annotator, NOON)


def test_every_queue_has_an_entry():
    files = {path.stem for path in (ROOT / "alfamix_core" / "queues").glob("*.py")} - NOT_FORMATS
    assert {f"{name}.py has no entry in FORMATS" for name in files - set(FORMATS)} == set()
    assert set(FORMATS) <= files


def test_each_question_is_written_once_best_first_whatever_the_order(form: Format, questions: list[Question]):
    text = form.write(questions, "file:///p/")
    found = re.findall(r"file:///(?:c|a)\.png|s3://b/x", text)
    assert found == ["file:///c.png", "s3://b/x", "file:///a.png"]
    assert "file:///p/rounds/000002/objects/ab12" in text
    for seed in range(5):
        assert form.write(random.Random(seed).sample(questions, 3), "file:///p/") == text


def test_a_file_without_answers_gives_no_events(form: Format, questions: list[Question]):
    assert read(form, form.write(questions, ""))[1] == []


def test_an_answer_is_one_event(form: Format, questions: list[Question]):
    text = form.fill(form.write(questions, ""), {"a": "猫", "c": "Großtrappe, männlich"})
    _, events = read(form, text)
    assert [(event.sample_id, event.kind, event.label, event.round, event.annotator) for event in events] == [
        ("c", "label", "Großtrappe, männlich", 1, "ann"),
        ("a", "label", "猫", 2, "ann"),
    ]
    assert {event.time for event in events} == {NOON}
    assert len({event.event_id for event in events}) == 2


def test_the_same_answers_are_the_same_batch_and_other_answers_or_annotators_another(
    form: Format, questions: list[Question]
):
    asked = form.write(questions, "")
    first = read(form, form.fill(asked, {"a": "cat"}))
    assert read(form, form.fill(asked, {"a": "cat"})) == first
    others = [read(form, form.fill(asked, {"a": "猫"})), read(form, form.fill(asked, {"a": "cat"}), "bob")]
    assert len({first[0], *(batch for batch, _ in others)}) == 3
    ids = [event.event_id for _, events in (first, *others) for event in events]
    assert len(set(ids)) == 3, "an event_id counts once in a project"


@pytest.mark.parametrize("answers", [{"a": "owl"}, {"elsewhere": "cat"}])
def test_an_unknown_class_or_sample_is_one_line_that_names_it(form: Format, question, answers: dict[str, str]):
    asked = form.write([question("a"), question("elsewhere", 1, 1)], "")
    with pytest.raises(InputError, match=r'^answers line \d+: [^\n]*"(owl|elsewhere)"[^\n]*$'):
        read(form, form.fill(asked, answers))


@pytest.mark.parametrize("damage", [lambda data: data[:-8], lambda data: b"\xff\xfe" + data, lambda data: b"\0" + data])
def test_a_damaged_file_is_one_line(form: Format, questions: list[Question], damage: Callable[[bytes], bytes]):
    data = form.fill(form.write(questions, ""), {"a": "cat", "b": "cat", "c": "cat"}).encode()
    with pytest.raises(InputError, match=r"^answers[^\n]+$"):
        read(form, damage(data))
