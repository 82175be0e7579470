"""What all JSON formats promise, held against each of them."""

import contextlib
import importlib
import io
import itertools
import json
import pkgutil
import tempfile
import tracemalloc
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core import records
from alfamix_core.errors import InputError
from alfamix_core.records.champion import Champion
from alfamix_core.records.checkpoint import Commit, Course, Unreadable
from alfamix_core.records.corrections import Released, Withdrawn
from alfamix_core.records.evaluation import ClassMetrics, Evaluation
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.lock import Holder, Lock
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.model import FeatureScaling, ModelCard, PixelStatistics
from alfamix_core.records.project import ImageSettings, ModelSettings, Project
from alfamix_core.records.query import ChosenSample, Question
from alfamix_core.records.record import MAX_LINE, Record, bounded_lines, read_lines
from alfamix_core.records.round import (
    Counts,
    Drift,
    Failure,
    ManualDecision,
    Outcome,
    Promotion,
    Round,
    StageTotal,
    Totals,
)
from alfamix_core.records.selection import PlacedSample, Selection
from alfamix_core.records.stage import Quarantined, StageLog, StageRun

NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
BIRDS = Project(name="birds", classes=("Großtrappe", "猫"))
PIXELS = PixelStatistics(mean=(0.5,), std=(1 / 3,))
PROMOTION = Promotion(promoted=True, reason="the first trained model", model="ab", metrics={"accuracy": 1 / 3})
PRESENT = Round(
    number=12,
    revision=3,
    fence=2,
    run_id="run",
    state="exported",
    planned_at=NOON,
    seed=5,
    versions={"samples": 3, "events": 0},
    settings=BIRDS,
    champion=Champion(round=7, metrics={"accuracy": 0.1}),
    counts=Counts(samples=3, pool=2, train=1),
    shards=1,
    digest="4be81f0c22aa" + "0" * 52,
    fresh=2,
    objects={"questions": "ab", "report": "cd"},
    model="ab",
    promotion=PROMOTION,
    outcome=Outcome(queries=2, strategy="alfamix", summary={"cap": 0.25, "words": "so"}, exported_at=NOON),
)
EXAMPLES = [
    BIRDS,
    Champion(round=3, metrics={"accuracy": 0.5}),
    ClassMetrics(name="猫", precision=0.1, recall=0.2, f1=0.3, support=4),
    Evaluation(classes=("a", "b"), metrics={"accuracy": 1 / 3}, confusion=((1, 0), (2, 3)), promotion=PROMOTION),
    LabelEvent(event_id="e", sample_id="s", kind="label", label="猫", annotator="ann", round=2, time=NOON),
    LabelEvent(event_id="e", sample_id="s", kind="skip", annotator="ann", time=NOON),
    Holder(run_id="run", host="here", boot="b", namespace="pid:[1]", pid=7, started="12345"),
    Lock(revision=2, fence=1, holder=Holder(run_id="run"), until=NOON),
    Lock(revision=1, fence=0),
    ManifestLine(uri="ü ber/ä.png", id="a.b-c_d", label="猫", split="val", group="camera 1"),
    ModelCard(
        classes=("a", "b"), model=ModelSettings(), image=ImageSettings(), embedding_size=64, round=1, trained=True
    ),
    PIXELS,
    FeatureScaling(kind="standardised", mean=(0.5,), std=(1 / 3,)),
    ChosenSample(rank=0, position=3, sample_id="s", uri="file:///a", score=None, suggestion=""),
    ChosenSample(rank=0, position=3, sample_id="s", uri="file:///a", score=-1e-30, suggestion="猫", confidence=0.5),
    Question(sample_id="s", uri="file:///a", round=1, rank=0, asked_at=NOON),
    PRESENT,
    PRESENT.counts,
    PRESENT.outcome,
    PROMOTION,
    ManualDecision(revision=2, kind="rollback", round=1, model="ab", champion_round=3, time=NOON),
    Withdrawn(sample_id="s", reason="keine Einwilligung für 猫", time=NOON),
    Released(sample_id="s", round=3, time=NOON),
    Failure(stage="embed", shard="1", run_id="run", status=2, line="wrong"),
    Quarantined(sample_id="s", uri="file:///a", reason="empty file"),
    StageRun(stage="embed", shard="1", seconds=0.1, rows=3),
    StageLog(runs=(StageRun(stage="embed", seconds=0.1),)),
    PlacedSample(sample_id="s", kind="pool", x=0.1, y=-2.5),
    Selection(strategy="alfamix", short_by=0, reason="", candidate_scores=(0.1, -1.0), predicted_shares={"猫": 0.1}),
    StageTotal(seconds=0.1, rows=3, gpu_seconds=0.2, retries=1),
    Totals(rounds={"alfamix": 2}, queries=4, stage_seconds=1e-3),
    Drift(embedding_distance=0.1, predicted_shares={"猫": 1 / 3}, class_shift=0.5),
    Unreadable(index=3, reason="empty file"),
    Course(pixels=PIXELS, losses=(0.5,), accuracies=(0.75,), steps=3),
    Commit(digest="0", file="a.safetensors", sha256="0", course=Course(pixels=PIXELS)),
]
EXAMPLES = [pytest.param(record, id=f"{type(record).__name__}-{place}") for place, record in enumerate(EXAMPLES)]


def test_every_record_has_an_example():
    settings = {"StrategySettings", "ImageSettings", "ModelSettings", "TrainingSettings", "RoundSettings"}
    settings |= {"QueueSettings", "PolicySettings", "AuditSettings", "PromotionSettings", "StopSettings"}
    settings |= {"LimitSettings", "BudgetSettings", "MetricsSettings"}  # of Project
    settings |= {"StageMeasures"}  # a base
    found = set()
    for module in pkgutil.iter_modules(records.__path__):
        for name, kind in vars(importlib.import_module(f"{records.__name__}.{module.name}")).items():
            if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record:
                found.add(name)
    assert found - settings == {type(example.values[0]).__name__ for example in EXAMPLES}


@pytest.mark.parametrize("record", EXAMPLES)
def test_what_is_written_is_read_back(record):
    assert type(record).parse(record.document(), "here") == record
    assert list(read_lines(type(record), [record.json_line()], "here")) == [(1, record)]
    assert record.json_line().count(b"\n") == 1


@pytest.mark.parametrize("record", EXAMPLES)
def test_equal_records_are_equal_bytes(record):
    again = type(record).parse(record.document(), "here")
    assert (again.document(), again.json_line()) == (record.document(), record.json_line())


@pytest.mark.parametrize("record", EXAMPLES)
def test_an_unknown_field_is_refused_by_name(record):
    fields = json.loads(record.document()) | {"colour": 1}
    with pytest.raises(InputError, match=r'^round 3: unknown field "colour"$'):
        type(record).parse(json.dumps(fields), "round 3")


@pytest.mark.parametrize("record", EXAMPLES)
def test_a_field_without_a_default_is_required(record):
    required = [name for name, field in type(record).model_fields.items() if field.is_required()]
    fields = json.loads(record.document())
    for name in required:
        with pytest.raises(InputError, match=f'field "{name}" is missing'):
            type(record).parse(json.dumps({key: value for key, value in fields.items() if key != name}), "it")


def test_the_bytes_of_a_document_by_hand():
    assert Champion(revision=1, round=3, model="ab", metrics={"accuracy": 0.5}).document() == (
        b'{\n  "revision": 1,\n  "fence": 0,\n  "round": 3,\n  "model": "ab",\n'
        b'  "metrics": {\n    "accuracy": 0.5\n  },\n'
        b'  "before": [],\n  "newest": null\n}\n'
    )
    assert ManifestLine(uri="ä.png").json_line() == '{"uri": "ä.png"}\n'.encode()


def test_records_are_never_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        BIRDS.budget = 3


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(InputError, match=r"^selection.json: "):
        Selection.parse(
            f'{{"strategy": "a", "short_by": 0, "reason": "", "candidate_scores": [{value}]}}', "selection.json"
        )


def test_a_wrong_value_is_named_with_what_must_hold_and_what_came():
    with pytest.raises(InputError) as refused:
        Question.parse(
            b'{"sample_id": 7, "uri": "u", "round": 0, "rank": "first", "asked_at": "2026-03-01T12:00"}', "line 1"
        )
    assert str(refused.value) == (
        'line 1: field "sample_id" must be a valid string, not 7; '
        'field "round" must be greater than or equal to 1, not 0; '
        'field "rank" must be a valid integer, not "first"; '
        'field "asked_at" must have timezone info, not "2026-03-01T12:00"'
    )


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(InputError) as refused:
        Counts.parse(json.dumps({"pool": "x" * 500}), "it")
    assert len(str(refused.value)) < 130


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"7", b"null", b'{"pool": 1} x'])
def test_what_is_no_document_is_one_line(data):
    with pytest.raises(InputError, match=r"^it: [^\n]+$"):
        Counts.parse(data, "it")


def test_lines_are_numbered_from_one_and_blank_ones_are_skipped():
    lines = [b'{"uri": "a"}\n', b"\n", b"  \r\n", b'{"uri": "b"}']
    assert [number for number, _ in read_lines(ManifestLine, lines, "m")] == [1, 4]
    with pytest.raises(InputError, match=r"^m line 3: "):
        list(read_lines(ManifestLine, [*lines[:2], b"?"], "m"))


def test_a_line_may_have_a_mebibyte_and_no_more():
    line = b'{"uri": "a"' + b" " * (2**20 - 13) + b"}\n"
    assert len(line) == MAX_LINE
    assert [number for number, _ in read_lines(ManifestLine, io.BytesIO(line * 3), "m")] == [1, 2, 3]
    for longer in (b" " + line, line[:-1] + b" \n", b"x" * (MAX_LINE + 1)):
        for stream in (io.BytesIO(b"\n" + longer), [b"\n", longer]):
            with pytest.raises(
                InputError, match=r"^m line 2: must have at most 1048576 bytes \(1 MiB\), but is longer$"
            ):
                list(read_lines(ManifestLine, stream, "m"))


def test_a_line_of_200_megabytes_costs_a_bounded_read(store):
    """Of the file, two buffers are read; and lines that are just short enough are not kept by the thousand."""
    with tempfile.TemporaryFile() as file:
        file.truncate(200_000_000)
        assert peak_bytes(lambda: list(bounded_lines(file, "m"))) < 4 * 2**20
        assert file.tell() < 4 * 2**20
    store.create("labels/a.jsonl", b'{"event_id": "' + b"x" * 20_000_000)
    with store.open("labels/a.jsonl") as stream:
        assert peak_bytes(lambda: list(read_lines(LabelEvent, stream, "labels/a.jsonl"))) < 8 * 2**20
    line = b'{"uri": "a"' + b" " * 2**19 + b"}\n"
    with tempfile.TemporaryFile() as file:
        file.writelines(itertools.repeat(line, 200))
        file.seek(0)
        assert peak_bytes(lambda: sum(1 for _ in read_lines(ManifestLine, file, "m"))) < 16 * 2**20


def peak_bytes(read) -> int:
    """Return what a call allocates at most, whether it refuses a long line or reads all."""
    tracemalloc.start()
    try:
        with contextlib.suppress(InputError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_line_whatever_it_holds_is_more_than_an_input_error(line):
    message, found = "", []
    try:
        found = list(read_lines(ManifestLine, [line], "m"))
    except InputError as error:
        message = str(error)
    assert message.startswith("m line 1: ") or len(found) == bool(line.strip())


LINE = st.sampled_from(
    [
        *(
            '{"uri": "a"}',
            ' {"uri": "b", "id": "x"} ',
            "",
            "  ",
            '{"uri": 1}',
            '{"uri": "a"',
            '"id": "b"}',
            "}",
            "{",
            "]",
        ),
        *('{"uri": "a"},{"uri": "b"}', '{"uri": "a"}, {"uri": "b"', '{"uri": "}"}', '{"uri": "a}', '{"uri": "{"}', ","),
        *('[{"uri": "a"}]', "{}", '{"uri": "a"}//', '{"uri": "\\u0061"}', '{"uri": "a", "uri": "b"}', '{"uri": ","}'),
    ]
)


@given(st.lists(LINE | st.text('{}[]",:uri a', max_size=12), max_size=12))
def test_lines_read_together_are_what_they_are_one_by_one(lines):
    def together():
        return [record for _, record in read_lines(ManifestLine, [line.encode() + b"\n" for line in lines], "m")]

    def one_by_one():
        numbered = [(place, line) for place, line in enumerate(lines, start=1) if line.strip()]
        return [ManifestLine.parse(line.strip(), f"m line {place}") for place, line in numbered]

    def outcome(read):
        try:
            return read()
        except InputError as error:
            return str(error)

    assert outcome(together) == outcome(one_by_one)
