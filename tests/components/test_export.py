"""export asks, writes the report, and commits; repeating it changes nothing."""

import hashlib
import json

import pytest

from alfamix_core.errors import InputError, LockedError
from alfamix_core.project import champion, layout, objects, rounds
from alfamix_core.project.ledger.ledger import open_ledger
from alfamix_core.project.totals import with_history
from alfamix_core.records import evaluation, selection
from alfamix_core.records.evaluation import Evaluation
from alfamix_core.records.query import ChosenSample
from alfamix_core.records.round import Promotion, Totals
from alfamix_core.records.selection import Selection
from alfamix_core.records.stage import Quarantined, StageLog, StageRun
from components.export import stage
from components.finish import stage as finish
from components.snapshot import stage as snapshot

MODEL = "ab" * 32
WEBP = bytes.fromhex("524946461a000000574542505650384c0d0000002f00000010071011118888fe0700")


def asked_of(birds, record):
    """Return the open questions by sample, and the counts."""
    with open_ledger(birds.store, record.settings, record.planned_at) as ledger:
        return {question.sample_id: question for question in ledger.open_queries()}, ledger.counts()


def artifacts(folder, chosen, bad=(), seconds=1.5, model=MODEL):
    """Write what select and evaluate hand to export."""
    queries, measured = folder / "queries", folder / "evaluation"
    (queries / selection.THUMBNAILS).mkdir(parents=True)
    measured.mkdir()
    (queries / selection.QUERIES_FILE).write_bytes(b"".join(sample.json_line() for sample in chosen))
    account = Selection(strategy="random", short_by=1, reason="the pool has no more", candidate_scores=(0.5,))
    (queries / selection.SELECTION_FILE).write_bytes(account.document())
    for sample in chosen[:1]:
        (queries / selection.THUMBNAILS / f"{sample.sample_id}.webp").write_bytes(WEBP)
    promotion = Promotion(promoted=True, reason="the first trained model", model=model, metrics={})
    quality = Evaluation(classes=("cat", "dog"), metrics={}, promotion=promotion)
    (measured / evaluation.FILE).write_bytes(quality.document())
    train = StageRun(stage="train", seconds=2.0)
    shards = [StageRun(stage="embed", shard=shard, seconds=seconds, rows=1) for shard in "01"]
    StageLog(runs=(train, *shards), quarantined=tuple(bad)).write(queries)
    StageLog(runs=(train, StageRun(stage="evaluate", seconds=0.5)), quarantined=tuple(bad)).write(measured)
    return queries, measured


@pytest.fixture
def exporting(birds, tmp_path):
    """Begin a round on four samples; return how to export it."""
    birds.drop("first", "a", "b", "c", "d")
    birds.drop("known", "k", label="dog")
    key = birds.ingest("run-1")
    world = tmp_path / "snapshot"
    snapshot.run(birds.uri, key, str(world), str(tmp_path / "champion"))
    report = tmp_path / "report.html"

    def run(run_id="run-1", name="artifacts", chosen=None, **fields):
        # -inf is a legal score, which JSON cannot hold
        chosen = chosen or [
            ChosenSample(
                rank=rank,
                position=rank,
                sample_id=sample,
                uri=birds.store.uri_of(f"drops/first/{sample}.png"),
                score=score,
                suggestion="cat",
            )
            for rank, (sample, score) in enumerate([("c", 0.5), ("b", None)])
        ]
        queries, measured = artifacts(tmp_path / name, chosen, **fields)
        stage.run(birds.uri, key, run_id, str(world), str(queries), str(measured), str(report))
        return report

    return run


def bad(key, reason="empty file"):
    return Quarantined(sample_id=key, uri=f"file:///{key}.png", reason=reason)


def files(birds):
    """Return the project byte for byte, less the lock, which export renews."""
    return {key: data for key, data in birds.files().items() if key != layout.LOCK}


def test_the_questions_are_asked_and_the_round_is_committed(birds, exporting):
    report = exporting()
    record, _ = rounds.read(birds.store, 1)
    questions, counts = asked_of(birds, record)
    assert [(q.sample_id, q.rank, q.round, q.suggestion) for q in questions.values()] == [
        ("c", 0, 1, "cat"),
        ("b", 1, 1, "cat"),
    ]
    assert {q.asked_at for q in questions.values()} == {record.planned_at}
    picture = questions["c"].thumbnail
    assert picture == f"rounds/000001/objects/{hashlib.sha256(WEBP).hexdigest()}"
    assert birds.store.read(picture).data == WEBP
    assert questions["b"].thumbnail == ""
    assert counts.pool == 2
    outcome = record.outcome
    assert record.state == "exported"
    assert (outcome.queries, outcome.short_by, outcome.reason) == (2, 1, "the pool has no more")
    assert (outcome.strategy, outcome.promoted, outcome.labels) == ("random", True, {"cat": 0, "dog": 1})
    assert {key: value.seconds for key, value in outcome.stages.items() if key != "export"} == {
        "train": 2.0,
        "embed": 3.0,
        "evaluate": 0.5,
    }
    assert objects.read(birds.store, record, "report") == report.read_bytes()
    assert report.read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert set(record.objects) == {"queries", "questions", "evaluation", "report"}
    named = {*record.objects.values(), hashlib.sha256(WEBP).hexdigest()}
    assert {entry.key.rsplit("/", 1)[-1] for entry in birds.store.list(layout.objects(1))} == named
    assert (record.model, champion.read(birds.store)[0].model) == (MODEL, MODEL)


def test_repeating_it_changes_nothing(birds, exporting):
    exporting()
    before = files(birds)
    exporting(name="again", seconds=9.0)
    assert files(birds) == before


def test_what_a_killed_export_wrote_does_not_exist_for_any_reader(birds, exporting):
    """Killed just before the commit: the next run asks what it has chosen, and the orphans change nothing."""
    exporting()
    record, tag = rounds.read(birds.store, 1)
    unfinished = {"state": "planned", "outcome": None, "objects": {}, "promotion": None, "model": "", "revision": 9}
    birds.store.swap(layout.round_file(1), record.model_copy(update=unfinished).document(), tag)
    birds.store.delete(layout.CHAMPION)
    questions, counts = asked_of(birds, record)
    assert (questions, counts.pool) == ({}, 4)
    other = ChosenSample(rank=0, position=0, sample_id="a", uri="file:///a", score=1.0, suggestion="dog")
    exporting(name="again", chosen=[other])
    questions, counts = asked_of(birds, record)
    assert (set(questions), rounds.read(birds.store, 1)[0].outcome.queries) == ({"a"}, 1)


def test_a_kill_between_the_commit_and_the_promotion_is_repaired_by_finish_and_by_the_next_ingest(birds, exporting):
    exporting()
    promoted = birds.store.read(layout.CHAMPION).data
    for repair in (lambda: finish.run(birds.uri, "run-1"), lambda: birds.ingest("run-2")):
        birds.store.delete(layout.CHAMPION)
        repair()
        assert birds.store.read(layout.CHAMPION).data == promoted


def test_the_quarantine_gate_applies_before_any_promotion(birds, exporting):
    with pytest.raises(InputError, match="1 of 5 samples cannot be read"):
        exporting(bad=[bad("a")])
    assert birds.store.entry(layout.CHAMPION) is None


def test_more_unreadable_samples_than_the_share_allows_stop_the_round(exporting):
    with pytest.raises(InputError) as refused:
        exporting(bad=[bad("a", "not an image")])
    assert str(refused.value) == (
        "1 of 5 samples cannot be read, more than limits.quarantine_share 0.05 allows: file:///a.png: not an image"
    )


def test_when_it_stops_nothing_is_asked_and_the_first_few_are_named(birds, exporting):
    before = files(birds)
    with pytest.raises(InputError, match=r"^4 of 5 .*: file:///a.png: empty file; .*c.png: empty file; and 1 more$"):
        exporting(bad=[bad(key) for key in "abcd"])
    assert files(birds) == before


def test_a_permitted_share_is_quarantined_permanently(birds, tmp_path):
    stored = birds.store.read(layout.PROJECT)
    birds.store.swap(layout.PROJECT, stored.data.replace(b"0.05", b"0.5"), stored.tag)
    birds.drop("first", "a", "b", "c")
    key = birds.ingest("run-1")
    snapshot.run(birds.uri, key, str(tmp_path / "snapshot"), str(tmp_path / "champion"))
    chosen = [ChosenSample(rank=0, position=1, sample_id="c", uri="file:///c", score=0.0, suggestion="")]
    queries, measured = artifacts(tmp_path / "artifacts", chosen, bad=[bad("b")])
    paths = [str(path) for path in (tmp_path / "snapshot", queries, measured, tmp_path / "report.html")]
    stage.run(birds.uri, key, "run-1", *paths)
    record, _ = rounds.read(birds.store, 1)
    (line,) = objects.read(birds.store, record, "quarantine").splitlines()
    assert json.loads(line) == bad("b").model_dump()
    _, counts = asked_of(birds, record)
    assert (record.outcome.quarantined, counts.quarantined, counts.queried, counts.pool) == (1, 1, 1, 1)


def test_a_run_that_was_taken_over_asks_nothing(birds, exporting):
    birds.expire_lock()
    birds.ingest("run-2")
    before = birds.files()
    with pytest.raises(LockedError, match="run run-1 no longer holds the project: run run-2 took it over"):
        exporting("run-1")
    assert birds.files() == before


def test_the_sums_grow_from_round_to_round_and_a_second_export_adds_nothing(birds, exporting):
    exporting()
    exporting(name="again")
    first = rounds.read(birds.store, 1)[0].outcome
    assert first.stages["embed"].model_dump(include={"seconds", "rows", "retries"}) == {
        "seconds": 3.0,
        "rows": 2,
        "retries": 0,
    }
    spent = first.totals.stage_seconds
    assert spent == pytest.approx(sum(total.seconds for total in first.stages.values()))
    assert first.totals.model_copy(update={"stage_seconds": 0.0}) == Totals(
        rounds={"random": 1}, queries=2, promotions=1
    )
    record = rounds.read(birds.store, 1)[0]
    second = first.model_copy(update={"strategy": "alfamix", "queries": 3, "promoted": False, "totals": None})
    assert with_history(birds.store, record.model_copy(update={"number": 2}), second).totals == Totals(
        rounds={"alfamix": 1, "random": 1}, queries=5, stage_seconds=round(2 * spent, 3), promotions=1
    )
