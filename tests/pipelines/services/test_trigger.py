"""The trigger on real stores and a real queue; rounds are real records, made in a moment instead of trained."""

import json
import os
import random
import re
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import boto3
import pytest
from moto.server import ThreadedMotoServer

from alfamix_core.errors import DeniedError, InputError, StorageError
from alfamix_core.project import champion, layout, lock, planning, rounds
from alfamix_core.project.initialise import initialise
from alfamix_core.records.lock import Holder
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.project import Project
from alfamix_core.records.round import Outcome, Promotion
from alfamix_core.storage import connection, open_store
from alfamix_core.storage.folder import FolderStore
from pipelines.engines.engine import Started
from pipelines.services import health
from pipelines.services.s3_events import Messages
from pipelines.services.trigger import LONGEST_TURN, Pace, Trigger
from pipelines.services.trigger_metrics import TriggerMetrics

FAST = Pace(poll=0.05, quiet=0.1, max_wait=1.0, review=3600, retry=0.05, longest=0.2)


class QuickRounds:
    """An engine whose rounds export at once, or do what a test says."""

    detached = True

    def __init__(self, store):
        self.store, self.runs, self.under_way, self.fail = store, [], False, 0

    def start(self, plan):
        if isinstance(self.fail, Exception):
            error, self.fail = self.fail, 0
            raise error
        run_id = f"run-{uuid.uuid4().hex}"
        now = datetime.now(UTC)
        record, _ = planning.begin(self.store, Holder(run_id=run_id), now)
        self.runs.append(record)
        if record is not None and self.fail:
            self.fail -= 1
            rounds.mark_failed(self.store, record.number, run_id, "killed")
        elif record is not None:
            outcome = Outcome(queries=0, strategy="random", exported_at=now)
            rounds.mark_exported(self.store, record.number, run_id, outcome, now)
        lock.release(self.store, run_id)
        return Started(run_id, run_id, run_id)

    def stale(self):
        return 0

    def busy(self):
        return self.under_way

    def free_lock(self):
        return ""


def drop(store, name):
    store.create(layout.manifest(name), ManifestLine(uri=f"{name}.png", id=name).json_line())


class Watched:
    """A project and a trigger on it, which runs in a thread."""

    def __init__(self, store, messages=None, pace=FAST):
        self.store, self.messages, self.pace = store, messages, pace
        initialise(store, Project(name="birds", classes=("cat", "dog"), strategy={"name": "random"}))
        self.engine = QuickRounds(store)
        self.threads = []
        self.restart()

    def restart(self):
        self.metrics = TriggerMetrics("birds")
        self.trigger = Trigger(self.store, self.engine, self.pace, self.metrics, self.messages, "birds")

    def start(self):
        thread = threading.Thread(target=self.trigger.run, daemon=True)
        thread.start()
        self.threads.append((self.trigger, thread))

    def stop(self):
        for trigger, thread in self.threads:
            trigger.stop()
            thread.join(20)
            assert not thread.is_alive()
        self.threads.clear()

    def until(self, true, seconds=20):
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, [record and record.number for record in self.engine.runs]
            time.sleep(0.02)

    def settled(self, drops):
        """Wait until every drop is in a round and nothing waits."""
        self.until(lambda: drops == self.drops_in_rounds() and not self.value("pending"))
        time.sleep(0.5)

    def drops_in_rounds(self):
        return self.engine.runs[-1].counts.samples if self.engine.runs and self.engine.runs[-1] else 0

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"alfamix_trigger_{name}", {"project": "birds", **labels})


@pytest.fixture
def watched(store):
    watched = Watched(store)
    yield watched
    watched.stop()


def events(capfd):
    return [
        json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith('{"alfamix": "trigger"')
    ]


def test_a_drop_starts_one_round_and_an_incomplete_one_none(watched, capfd):
    watched.store.create("drops/later/files/a.png", b"")
    watched.start()
    time.sleep(0.5)
    assert watched.engine.runs == []
    drop(watched.store, "first")
    watched.settled(1)
    drop(watched.store, "later")
    watched.settled(2)
    watched.stop()
    assert [record.number for record in watched.engine.runs] == [1, 2]
    said = events(capfd)
    assert [(each["state"], each["round"]) for each in said if each["state"] == "started"] == [
        ("started", n) for n in (1, 2)
    ]
    assert (said[0]["state"], said[-1]["state"], {each["project"] for each in said}) == (
        "watching",
        "stopped",
        {"birds"},
    )


def test_a_burst_of_drops_is_one_round(watched):
    watched.start()
    for number in range(5):
        drop(watched.store, f"d{number}")
    watched.settled(5)
    assert len(watched.engine.runs) <= 2


def test_what_keeps_coming_is_not_waited_for_without_end(tmp_path):
    watched = Watched(open_store((tmp_path / "p").as_uri()), pace=Pace(poll=0.05, quiet=30, max_wait=0.5))
    watched.start()
    began = time.monotonic()
    drop(watched.store, "first")
    watched.until(lambda: watched.engine.runs)
    assert 0.4 <= time.monotonic() - began < 10
    watched.stop()


def test_labels_start_a_round_and_a_label_batch_that_changes_nothing_does_not(watched):
    drop(watched.store, "first")
    watched.start()
    watched.settled(1)
    watched.store.create(layout.labels("empty"), b"")
    watched.until(lambda: watched.value("considered_total", decision="idle"))
    assert len(watched.engine.runs) == 1
    event = {"event_id": "1", "sample_id": "first", "kind": "label", "label": "cat", "annotator": "ann"}
    line = json.dumps({**event, "time": "2026-03-01T12:00:00Z"}) + "\n"
    watched.store.create(layout.labels("one"), line.encode())
    watched.until(lambda: len(watched.engine.runs) == 2)


def test_after_a_restart_nothing_is_started_twice_and_nothing_is_forgotten(watched):
    drop(watched.store, "first")
    watched.start()
    watched.settled(1)
    watched.stop()
    watched.restart()
    watched.start()
    watched.until(lambda: watched.value("considered_total", decision="idle"))
    assert len(watched.engine.runs) == 1
    watched.stop()
    drop(watched.store, "second")
    watched.restart()
    watched.start()
    watched.settled(2)
    assert len(watched.engine.runs) == 2


def test_a_round_that_another_runs_is_waited_for(watched, capfd):
    drop(watched.store, "first")
    now = datetime.now(UTC)
    lock.acquire(watched.store, Holder(run_id="other"), now, now.replace(year=2999))
    watched.start()
    time.sleep(1)
    assert watched.engine.runs == []
    lock.release(watched.store, "other")
    watched.settled(1)
    assert len(watched.engine.runs) == 1
    waiting = [each["text"] for each in events(capfd) if each["state"] == "waiting"]
    assert len(waiting) == 1
    assert "locked by run other" in waiting[0]


def test_what_comes_while_a_run_is_under_way_starts_the_next(watched):
    drop(watched.store, "first")
    watched.start()
    watched.until(lambda: watched.engine.runs)
    watched.engine.under_way = True
    drop(watched.store, "second")
    time.sleep(0.6)
    assert len(watched.engine.runs) == 1
    watched.engine.under_way = False
    watched.settled(2)


def test_a_round_that_failed_is_resumed_until_it_ends_well(watched):
    watched.engine.fail = 3
    drop(watched.store, "first")
    watched.start()
    watched.until(lambda: len(watched.engine.runs) == 4)
    time.sleep(0.5)
    assert [record.number for record in watched.engine.runs] == [1, 1, 1, 1]


def test_errors_are_counted_said_once_and_tried_again(watched, capfd):
    watched.engine.fail = StorageError("the cluster is away")
    watched.start()
    drop(watched.store, "first")
    watched.settled(1)
    assert watched.value("errors_total", source="project") == 1
    stored = watched.store.read(layout.PROJECT)
    tag = watched.store.swap(layout.PROJECT, b"{", stored.tag)
    drop(watched.store, "second")
    watched.until(lambda: watched.value("errors_total", source="project") > 3)
    watched.store.swap(layout.PROJECT, stored.data, tag)
    watched.settled(2)
    watched.stop()
    assert [each["text"][:12] for each in events(capfd) if each["state"] == "error"] == ["the cluster ", "project.json"]


def test_once_looks_once(watched):
    assert watched.trigger.run_once() == 0
    assert watched.engine.runs == []
    drop(watched.store, "first")
    watched.restart()
    watched.trigger.run_once()
    watched.restart()
    watched.trigger.run_once()
    assert len(watched.engine.runs) == 1


def test_health_and_metrics_are_served(watched):
    drop(watched.store, "first")
    with health.serve(watched.metrics, 0, stale=5, host="127.0.0.1") as port:
        watched.start()
        watched.settled(1)
        with urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            assert (answer.status, answer.read()) == (200, b"ok\n")
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            said = answer.read().decode()
        assert 'alfamix_trigger_starts_total{project="birds"} 1.0' in said
        assert 'alfamix_trigger_events_total{project="birds",source="poll"} 1.0' in said
        watched.stop()
        watched.metrics.turned -= 6
        with pytest.raises(OSError, match="503"):
            urlopen(f"http://127.0.0.1:{port}/healthz")
        with (
            pytest.raises(InputError, match=rf"^--host 127.0.0.1, --port {port}: cannot be listened on: "),
            health.serve(watched.metrics, port, 5, "127.0.0.1"),
        ):
            pass


# the queue


@pytest.fixture
def sqs(monkeypatch, s3_server):
    """An SQS server with one queue: its url, and a client."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("sqs", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    yield client.create_queue(QueueName=f"q{uuid.uuid4().hex}")["QueueUrl"], client
    client.close()
    server.stop()


@pytest.fixture
def listening(sqs, s3_server):
    """A project on S3 that is not polled after the first look, so that only messages tell."""
    url, client = sqs
    store = open_store(f"s3://{s3_server.bucket}/{uuid.uuid4().hex}")
    messages = Messages(url)
    watched = Watched(store, messages, Pace(poll=3600, quiet=0.1, max_wait=1.0, retry=0.05, longest=0.2))
    watched.send = lambda *bodies: send(client, url, bodies)
    watched.left = lambda: sum(
        int(client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"][name])
        for name in ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    )
    yield watched
    watched.stop()
    messages.close()
    store.close()


def send(client, url, bodies):
    for start in range(0, len(bodies), 10):
        batch = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
        client.send_message_batch(QueueUrl=url, Entries=batch)


def event_of(store, key, name="ObjectCreated:Put"):
    bucket, _, prefix = store.uri.removeprefix("s3://").partition("/")
    return json.dumps(
        {"Records": [{"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": f"{prefix}/{key}"}}}]}
    )


def together(events):
    """One message of several events, as S3 may send them."""
    return json.dumps({"Records": [record for event in events for record in json.loads(event)["Records"]]})


@pytest.mark.s3
def test_a_thousand_duplicated_shuffled_events_for_ten_drops_start_at_most_ten_rounds(listening):
    """Every drop is in a round; most events come before the drop that they tell of, or long after it."""
    watched = listening
    names = [f"d{number}" for number in range(10)]
    events = [event_of(watched.store, layout.manifest(name)) for name in names for _ in range(100)]
    random.Random(0).shuffle(events)
    bodies = [together(events[start : start + 5]) for start in range(0, 1000, 5)]
    watched.start()
    for place, name in enumerate(names):
        drop(watched.store, name)
        watched.send(*bodies[place * 20 : place * 20 + 20])
    watched.send(*[event_of(watched.store, layout.manifest(name)) for name in reversed(names)])
    watched.until(lambda: not watched.left(), 60)
    watched.settled(10)
    starts = len(watched.engine.runs)
    assert 1 <= starts <= 10
    assert all(watched.engine.runs), "a run that found nothing to do was started"
    assert watched.value("starts_total") == starts


@pytest.mark.s3
def test_malformed_messages_are_counted_and_skipped_and_others_are_ignored(listening, capfd):
    watched = listening
    store = watched.store
    watched.start()
    watched.until(lambda: watched.value("last_look_timestamp_seconds"))
    drop(store, "first")
    malformed = [
        "{",
        "[]",
        "null",
        '"x"',
        "{}",
        '{"Records": 3}',
        '{"Records": [{}]}',
        "[" * 5000,
        '{"detail-type": "Object Created"}',
    ]
    malformed += ['{"Records": [{"eventName": 7, "s3": {}}]}', '{"Type": "Notification", "Message": "no"}']
    elsewhere = [
        '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "alfamix"}',
        event_of(store, layout.manifest("first"), "ObjectRemoved:Delete"),
        event_of(store, "rounds/000001/round.json"),
        event_of(store, "drops/first/files/manifest.jsonl"),
        event_of(store, layout.manifest("first")).replace('"name": "alfamix"', '"name": "other"'),
    ]
    watched.send(*malformed, *elsewhere)
    watched.until(lambda: not watched.left())
    time.sleep(0.5)
    assert watched.engine.runs == []
    assert watched.value("messages_total", kind="malformed") == len(malformed)
    assert watched.value("messages_total", kind="elsewhere") == len(elsewhere)
    wrapped = json.dumps({"Type": "Notification", "Message": event_of(store, layout.manifest("first"))})
    watched.send(wrapped)
    watched.settled(1)
    drop(store, "second")
    bucket, _, prefix = store.uri.removeprefix("s3://").partition("/")
    detail = {"bucket": {"name": bucket}, "object": {"key": f"{prefix}/drops/second/manifest.jsonl"}}
    watched.send(json.dumps({"detail-type": "Object Created", "detail": detail}))
    watched.settled(2)
    watched.stop()
    assert sum(each["state"] == "malformed" for each in events(capfd)) == len(malformed)


@pytest.mark.s3
def test_a_queue_that_is_gone_does_not_stop_the_polling(sqs, s3_server):
    url, client = sqs
    store = open_store(f"s3://{s3_server.bucket}/{uuid.uuid4().hex}")
    messages = Messages(url)
    watched = Watched(store, messages)
    client.delete_queue(QueueUrl=url)
    watched.start()
    watched.until(lambda: watched.value("errors_total", source="messages") > 1)
    drop(store, "first")
    watched.settled(1)
    watched.stop()
    messages.close()
    store.close()


def test_a_queue_that_is_none_is_refused():
    with pytest.raises(InputError, match=r'must be the url of a queue, .* not "queue"'):
        Messages("queue")
    messages = Messages("http://127.0.0.1:9/1/queue")
    with pytest.raises((StorageError, InputError), match=r"127\.0\.0\.1:9"):
        messages.receive(0)
    messages.close()


def test_a_store_that_accepts_and_never_answers_does_not_make_the_process_look_hung():
    """Five attempts of 10 s to connect and 60 s without a byte, and boto3's waits, for a listing and for a question."""
    assert connection.LONGEST_CALL >= 5 * (10 + 60)
    assert LONGEST_TURN >= 2 * connection.LONGEST_CALL


# the rights


class Restricted(FolderStore):
    """A folder that refuses every write except the documented ones of the trigger."""

    def _denied(self, key: str, *_: object) -> str:
        raise DeniedError(f"{self.uri_of(key)}: access is denied")

    create = _create_from = mark = delete = _denied

    def swap(self, key: str, data: bytes, tag: str) -> str:
        return super().swap(key, data, tag) if key in RIGHTS else self._denied(key)


def documented_rights():
    """Return the keys that the bucket policy of docs/operations.md lets the trigger write."""
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text("utf-8")
    policy = json.loads(re.search(r"```json\n(\{.*?\n\})\n```", page, re.DOTALL)[1])
    resources = [
        resource
        for statement in policy["Statement"]
        if "s3:PutObject" in statement["Action"] and "user/trigger" in json.dumps(statement["Principal"])
        for resource in ([statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"])
    ]
    return {resource.removeprefix("arn:aws:s3:::alfamix/birds/") for resource in resources}


RIGHTS = documented_rights()


def killed_after_its_commit(store, promoted):
    """Leave an exported round under the lock of its dead process, with a promotion that nobody applied."""
    now = datetime.now(UTC)
    dead = lock.process("run-1", os.getpid()).model_copy(update={"pid": 2**22 + 1})
    planning.begin(store, dead, now)
    rounds.mark_exported(
        store,
        1,
        "run-1",
        Outcome(queries=0, strategy="random", exported_at=now),
        now,
        promotion=Promotion(promoted=promoted, reason="the first trained model", model="a" * 64, metrics={}),
    )


@pytest.mark.parametrize("state", ["new", "idle", "running", "failed", "killed", "killed before its promotion"])
def test_a_trigger_with_the_documented_rights_completes_a_turn(tmp_path, state):
    folder = tmp_path / "p"
    watched = Watched(open_store(folder.as_uri()))
    now = datetime.now(UTC)
    drop(watched.store, "first")
    if state == "idle":
        watched.trigger.run_once()
    elif state == "running":
        planning.begin(watched.store, Holder(run_id="run-1"), now)
    elif state == "failed":
        planning.begin(watched.store, Holder(run_id="run-1"), now)
        rounds.mark_failed(watched.store, 1, "run-1", "killed")
        lock.release(watched.store, "run-1")
    elif state.startswith("killed"):
        killed_after_its_commit(watched.store, promoted=state != "killed")
    before = {entry.key: entry.tag for entry in watched.store.list()}
    starts = len(watched.engine.runs)
    trigger = Trigger(Restricted(folder), watched.engine, FAST, TriggerMetrics("birds"))
    assert trigger.run_once() == 0
    assert len(watched.engine.runs) - starts == (state in ("new", "failed"))
    if state not in ("new", "failed"):
        changed = {entry.key for entry in watched.store.list() if before.get(entry.key) != entry.tag}
        assert changed == ({layout.LOCK} if state.startswith("killed") else set())
    if state.startswith("killed"):
        assert lock.read(watched.store).value.holder is None
        planning.begin(watched.store, Holder(run_id="run-2"), now)
        assert champion.read(watched.store).value.model == ("a" * 64 if state != "killed" else "")
