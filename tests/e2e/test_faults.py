"""A campaign whose rounds are killed again and again, on a network that fails, ends as an undisturbed one does.

The short form runs with all tests, the long form with `make faults`. Seeds are fixed; how far a stage is when the
kill strikes depends on the machine, and whatever it is, the end must be the same.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from alfamix_core.project import doctor, layout, lock, rounds
from alfamix_core.project.inbox.deliveries import register
from alfamix_core.project.initialise import initialise
from alfamix_core.project.ledger.ledger import open_ledger
from alfamix_core.records.project import Project
from alfamix_core.storage import Store, file_uri, open_store, path_of
from tests.conftest import S3Server
from tests.e2e.conftest import Command, produced, write_digits
from tests.e2e.stage_client import StageServer, stage_server
from tests.e2e.test_killed import kill_in
from tests.servers.s3_proxy import FAULTS, Proxy
from tests.servers.stages import STAGES, Account

PIPELINE_KILLS = ("ingest", "train", "embed", "select", "export")


@dataclass(frozen=True)
class End:
    """The result that a campaign must have, whatever happened on the way."""

    queries: dict[int, list[tuple[str, int, str]]]
    labels: dict[str, str | None]
    models: dict[int, str]
    champion: int | None
    metrics: dict[int, dict[str, float]]


def make(store: Store, manifest: Path, data_uri: str) -> None:
    """Make a project of digits, every model of which is promoted, so that all of them can be compared."""
    text = {
        "name": "faults",
        "classes": [str(digit) for digit in range(10)],
        "budget": 10,
        "model": {"backbone": "mlp", "embedding_batch": 32},
        "image": {"size": 8, "channels": "grey"},
        "training": {"max_epochs": 10, "start": "champion"},
        "round": {"shard_size": 1, "max_shards": 2},
        "promotion": {"min_gain": -1},
        "data_prefixes": [data_uri],
    }
    initialise(store, Project.parse(json.dumps(text), "project"))
    register(store, f"{data_uri}/{manifest.name}")


def end_of(store: Store) -> End:
    """Read a campaign's end, and check what must hold in any."""
    records = list(rounds.read_all(store))
    queries = {}
    for record in records:
        asked = produced(store, record.number, "questions")
        queries[record.number] = [(line["sample_id"], line["rank"], line["suggestion"]) for line in asked]
    times = Counter(sample for asked in queries.values() for sample, _, _ in asked)
    assert max(times.values()) == 1, "a sample is asked once"
    with open_ledger(store, rounds.read_settings(store), datetime.now(UTC)) as ledger:
        assert not ledger.quarantined(), "no fault of the network is a fault of a sample"
        assert not ledger.open_queries(), "what was asked is answered"
        labels = ledger.query("select sample_id, label from states").to_pylist()
    held = lock.read(store)
    assert held is not None
    assert not lock.blocked_by(held[0], "", datetime.now(UTC)), "the lock is free"
    events = [json.loads(line) for e in store.list(layout.LABELS) for line in store.read(e.key).data.splitlines()]
    assert len(events) == sum(times.values()), "every answer is there, once"
    champion = json.loads(store.read(layout.CHAMPION).data)
    return End(
        queries=queries,
        labels={row["sample_id"]: row["label"] for row in labels},
        models={record.number: record.model for record in records},
        champion=champion["round"],
        metrics={record.number: dict(record.outcome.metrics) for record in records if record.outcome},
    )


def check_nothing_is_left(store: Store, calm: Store) -> None:
    """What an undisturbed project has not is why a run stopped, or the doctor names it.

    The names of drops, labels, tables' files and objects come from digests of what holds uris and times.
    """
    findings = doctor.examine(store, datetime.now(UTC))
    assert not [finding for finding in findings if finding.kind in ("inconsistent", "overdue")]
    more = {entry.key for entry in store.list()} - {entry.key for entry in calm.list()}
    why = (
        layout.FAILURES,
        *(layout.objects(record.number) for record in rounds.read_all(store)),
        *(layout.run(record.number) for record in rounds.read_all(store) if record.state != "closed"),
    )
    named = tuple(finding.key for finding in findings if finding.key)
    assert not [key for key in more if not key.startswith((layout.DROPS, layout.LABELS, layout.LEDGER, *why, *named))]


def is_exported(store: Store, number: int) -> bool:
    """Whether the round is committed."""
    return number in rounds.numbers(store) and rounds.read(store, number)[0].state in ("exported", "closed")


class Campaign:
    """A project that is taken through its rounds; it counts the kills, and the seconds of the stages."""

    def __init__(self, server: StageServer, store: Store, work: Path, answers: Path, seed: int = 0):
        self.server, self.store, self.work, self.answers = server, store, work, answers
        self.random = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.failed_runs = 0
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def run(self, **kill) -> Account:
        """Run once: answer what is open, and work on the round that is due."""
        account = self.server.run(self.store, self.work, self.answers, **kill)
        if account.killed:
            self.kills[account.killed.split("-")[0]] += 1
        self.failed_runs += account.status != 0
        for stage, seconds in account.seconds.items():
            self.seconds[stage].append(seconds)
        return account

    def round(self, number: int, kills: int, usual: dict[str, float]) -> None:
        """Take a round to its end through kills at random points of random stages."""
        stages = sorted(self.random.choices(STAGES, k=kills), key=STAGES.index)
        for stage in stages:
            if is_exported(self.store, number):
                break
            after = self.random.uniform(0, max(usual[stage], min(self.seconds[stage], default=0)))
            self.run(kill=stage, after=after, orphan=self.random.random() < 0.25)
        self.until_exported(number)

    def until_exported(self, number: int) -> None:
        """Run again until the round is committed; only the network may need a second try."""
        for _ in range(10):
            if is_exported(self.store, number):
                return
            account = self.run()
            assert account.status in (0, 3), (self.work / "log").read_text()[-4000:]
        raise AssertionError(f"round {number} is not exported\n" + (self.work / "log").read_text()[-4000:])

    def end(self) -> End:
        """Answer the last questions, and return the result of the campaign."""
        for _ in range(10):
            if self.run(answers_only=True).status == 0:
                return end_of(self.store)
        raise AssertionError("the last questions are not answered\n" + (self.work / "log").read_text()[-4000:])

    def __str__(self) -> str:
        lines = [f"{'stage':<10} {'kills':>5} {'finished':>8} {'seconds':>7}"]
        for stage in dict.fromkeys(name.split("-")[0] for name in STAGES):
            seconds = [each for name, times in self.seconds.items() if name.split("-")[0] == stage for each in times]
            lines.append(f"{stage:<10} {self.kills[stage]:>5} {len(seconds):>8} {sum(seconds):>7.1f}")
        return "\n".join([*lines, f"{'all':<10} {self.kills.total():>5}"])


def undisturbed(server: StageServer, folder: Path, manifest: Path, count: int) -> tuple[End, dict[str, float]]:
    """Return the result of a campaign of that many rounds, and the usual seconds of its stages."""
    calm = Campaign(
        server, open_store(file_uri(folder / "calm")), folder / "calm-work", manifest.parent / "answers.csv"
    )
    make(calm.store, manifest, file_uri(manifest.parent))
    for number in range(1, count + 1):
        assert calm.run().status == 0, (calm.work / "log").read_text()[-4000:]
        assert is_exported(calm.store, number)
    end = calm.end()
    assert len(set(end.models.values())) == count, "every round learns something"
    return end, {stage: min(times) for stage, times in calm.seconds.items()}


@contextmanager
def behind_proxy(server: S3Server, name: str, manifest: Path) -> Iterator[tuple[Proxy, Store, str]]:
    """Put the digits into a bucket; yield a proxy, and for who does not go through it, a store and the data's uri."""
    data = open_store(f"s3://{server.bucket}/{name}-data")
    for path in (*sorted(manifest.parent.glob("*.png")), manifest):
        data.create_from(path.name, path)
    store = open_store(f"s3://{server.bucket}/{name}")
    proxy = Proxy(server.endpoint, stall_seconds=3)
    with proxy.running():
        yield proxy, store, data.uri
    data.close()
    store.close()


@pytest.mark.s3
def test_two_rounds_killed_four_times_on_a_failing_network_end_as_if_nothing_had_happened(
    tmp_path: Path, s3_server: S3Server
):
    manifest = write_digits(tmp_path / "digits", labelled=20, test=20, pool=60)
    with behind_proxy(s3_server, "faults-short", manifest) as (proxy, store, data_uri):
        proxy.disturb(0.01, seed=1)
        with stage_server(s3_server.environment | {"AWS_ENDPOINT_URL_S3": proxy.endpoint}) as server:
            calm, usual = undisturbed(server, tmp_path, manifest, 2)
            make(store, manifest, data_uri)
            campaign = Campaign(server, store, tmp_path / "work", manifest.parent / "answers.csv", seed=1)
            for number in (1, 2):
                campaign.round(number, 2, usual)
            assert campaign.end() == calm
            check_nothing_is_left(store, open_store(file_uri(tmp_path / "calm")))
    assert 3 <= campaign.kills.total() <= 4
    assert proxy.done


@pytest.mark.faults
def test_seven_rounds_killed_forty_times_end_as_if_nothing_had_happened(
    tmp_path: Path, alfamix: Command, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
):
    manifest = write_digits(tmp_path / "digits", labelled=20, test=40, pool=140)
    with stage_server({}) as server:
        calm, usual = undisturbed(server, tmp_path, manifest, 7)
        store = open_store(file_uri(tmp_path / "killed"))
        make(store, manifest, file_uri(manifest.parent))
        campaign = Campaign(server, store, tmp_path / "work", manifest.parent / "answers.csv", seed=40)
        for number in range(1, 8):
            if number == 3:
                through_the_pipeline(campaign, alfamix, environment)
            else:
                campaign.round(number, 9, usual)
        assert campaign.end() == calm
        check_nothing_is_left(store, open_store(file_uri(tmp_path / "calm")))
    with capsys.disabled():
        print(f"\n\nfolder, with {len(PIPELINE_KILLS)} kills of the whole pipeline\n{campaign}")
    assert campaign.kills.total() >= 40


def through_the_pipeline(campaign: Campaign, alfamix: Command, environment: dict[str, str]) -> None:
    """Take the third round to its end by the command, killed in five stages."""
    project = path_of(campaign.store.uri)
    alfamix("answer", project, "--oracle", campaign.answers)
    for stage in PIPELINE_KILLS:
        assert not is_exported(campaign.store, 3), f"{stage} is not killed"
        events = kill_in(stage, project, environment, campaign.random.uniform(0, 1))
        if not any(event["alfamix"] == "outcome" for event in events):
            campaign.kills[stage] += 1
    if not is_exported(campaign.store, 3):
        alfamix("round", project)


@pytest.mark.faults
@pytest.mark.s3
def test_four_rounds_killed_on_a_failing_network_end_as_if_nothing_had_happened(
    tmp_path: Path, s3_server: S3Server, capsys: pytest.CaptureFixture[str]
):
    manifest = write_digits(tmp_path / "digits", labelled=20, test=40, pool=100)
    with behind_proxy(s3_server, "faults-long", manifest) as (proxy, store, data_uri):
        proxy.disturb(0.02, seed=2)
        with stage_server(s3_server.environment | {"AWS_ENDPOINT_URL_S3": proxy.endpoint}) as server:
            calm, usual = undisturbed(server, tmp_path, manifest, 4)
            make(store, manifest, data_uri)
            campaign = Campaign(server, store, tmp_path / "work", manifest.parent / "answers.csv", seed=2)
            for number in range(1, 5):
                if number == 2:
                    proxy.faults += [(".*", "refuse")] * 8
                    assert campaign.run().status == 3, "longer than a client has patience"
                campaign.round(number, 6, usual)
            assert campaign.end() == calm
            check_nothing_is_left(store, open_store(file_uri(tmp_path / "calm")))
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(proxy.done.items()))
    with capsys.disabled():
        print(
            f"\n\nS3, with {proxy.done.total()} faults in {len(proxy.seen)} requests: {faults}\n"
            f"{campaign}\nruns that a stage ended for want of a store: {campaign.failed_runs}"
        )
    assert campaign.kills.total() >= 12
    assert set(proxy.done) == set(FAULTS)
