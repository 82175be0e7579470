"""A campaign against an adversary: after each of its acts no command is stuck, and the ledger equals its slow twin.

The short form runs with all tests, the long form with `make faults`. Seeds are fixed; how far a stage is when a kill
strikes depends on the machine.
"""

import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from alfamix_core.project import rounds
from alfamix_core.project.inbox.deliveries import register
from alfamix_core.project.initialise import initialise
from alfamix_core.project.ledger.ledger import open_ledger
from alfamix_core.records.project import Project
from alfamix_core.storage import Store, file_uri, open_store
from tests.conftest import S3Server
from tests.e2e.adversary import CLASSES, Clock, Inbox, Vandal, run_elsewhere, together, write_pictures
from tests.e2e.conftest import write_digits
from tests.e2e.stage_client import StageServer, stage_server
from tests.servers.s3_proxy import FAULTS, Proxy
from tests.servers.stages import STAGES, Account
from tests.twin.compare import disagreements
from tests.twin.formats import Settings
from tests.twin.project import history_of

FILE_ACTS = ("append", "truncate", "replace", "delete", "repair", "repeat_event_ids", "misdate", "withdraw_and_release")
PATIENCE = 6  # runs that a failing network may cost


def make(store: Store, manifest: Path, data_uri: str) -> None:
    """Make a small project, whose rounds are cheap and whose every model is promoted."""
    text = {
        **{"name": "adversary", "classes": CLASSES, "budget": 2, "data_prefixes": [data_uri]},
        "strategy": {"name": "random"},
        "model": {"backbone": "mlp", "embedding_batch": 64},
        "image": {"size": 8, "channels": "grey"},
        "training": {"max_epochs": 2},
        "round": {"shard_size": 1, "max_shards": 2},
        "promotion": {"min_gain": -1},
        "limits": {"quarantine_share": 0.5},
        "audit": {"share": 0.1, "per_round": 1},
    }
    initialise(store, Project.model_validate(text, strict=False))
    register(store, f"{data_uri}/{manifest.name}")


@dataclass
class Campaign:
    """A project, its servers, and what was done to it.

    Attributes:
        store: the project, reached without faults.
        server: server that does the runs.
        rival: server that does what happens at the same time.
        moved: server with another clock; None where no act needs one.
        clock: clock of ``moved``.
        environment: what commands need to reach the project.
        folder: folder for everything on this machine.
        answers: CSV of known answers.
        random: source of what is done, and when.
        samples: ids of samples about which answers are delivered.
    """

    store: Store
    server: StageServer
    rival: StageServer
    moved: StageServer | None
    clock: Clock
    environment: dict[str, str]
    folder: Path
    answers: Path
    random: random.Random
    samples: list[str]
    vandal: Vandal = field(init=False)
    acts: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    story: list[str] = field(default_factory=list)
    judged: set[int] = field(default_factory=set)
    checks: int = 0
    asleep: set[int] = field(default_factory=set)

    def __post_init__(self):
        self.vandal = Vandal(Inbox(self.store.uri), self.random, self.samples)

    @property
    def work(self) -> Path:
        """Folder of outputs, shared by all runs."""
        return self.folder / "work"

    def run(self, server: StageServer | None = None, **fields: object) -> Account:
        """Run once: answer what is open, and work on the round that is due."""
        account = (server or self.server).run(self.store, self.work, self.answers, **fields)
        self._note(account)
        if account.stopped:
            self.asleep.add(account.stopped)
        return account

    def wake(self, account: Account) -> None:
        """Let a stopped stage continue."""
        self.asleep.discard(account.stopped)
        os.kill(account.stopped, signal.SIGCONT)

    def command(self, *arguments: str, server: StageServer | None = None) -> Account:
        """Run one command, which may refuse but must not break."""
        account = (server or self.server).run(self.store, self.work, self.answers, command=arguments)
        self.story.append(f"alfamix {' '.join(arguments)}: {account.status}")
        found = arguments[0] == "doctor"  # which ends with 1 when it found anything
        assert account.status in ((0, 1, 2, 3) if found else (0, 2, 3)), account.text
        return account

    def _note(self, account: Account) -> None:
        if account.killed and not account.stopped:
            self.kills[account.killed.split("-")[0]] += 1
        for stage, seconds in account.seconds.items():
            self.seconds[stage].append(seconds)
        if not account.stopped:
            self.statuses[account.status] += 1
            assert account.status in (0, 2, 3), self.log()

    def log(self) -> str:
        """Return the end of what the stages printed."""
        return (self.work / "log").read_text(errors="replace")[-3000:]

    def until_done(self) -> None:
        """Run until a run succeeds: whatever was done before, nothing is stuck."""
        for _ in range(PATIENCE):
            account = self.run()
            if account.status == 0 and not account.killed:
                self.check()
                return
            self.check()
        raise AssertionError(f"the project is stuck\n{self.log()}\n{self}")

    def killed_run(self) -> None:
        """Run a round that is killed at any moment of any stage; sometimes the stage itself survives."""
        stage = self.random.choice(STAGES)
        usual = min(self.seconds[stage], default=0.3)
        self.story.append(f"kill in {stage}")
        self.run(kill=stage, after=self.random.uniform(0, usual), orphan=self.random.random() < 0.25)
        self.check()

    def change_files(self, *acts: str) -> None:
        """Change files of the inbox while nothing runs, then run."""
        for act in acts:
            self.story.append(getattr(self.vandal, act)())
            self.acts[act] += 1
        self.check()

    def change_files_under_a_run(self, *acts: str) -> None:
        """Change files of the inbox while a run is in its middle."""
        account = self.run(stop=self.random.choice(("train", "evaluate", "select", "export")))
        self.change_files(*acts)
        if account.stopped:
            self.wake(account)
            self._note(self.server.rest())
        self.check()

    def two_drops(self) -> None:
        """Deliver two folders with common pictures at the same moment."""
        self.acts["two drops"] += 1
        folders = []
        for side in "ab":
            name = f"drop-{self.acts['two drops']}-{side}"
            folders.append(write_pictures(self.folder / name, [f"p{number}" for number in range(4)], common=3))
        broken = folders[0] / "broken.png"
        broken.write_bytes(b"\x89PNG\r\n\x1a\n" + self.acts["two drops"].to_bytes(4, "big"))
        accounts = together(
            *(
                lambda server=server, folder=folder: self.command("drop", self.store.uri, str(folder), server=server)
                for server, folder in zip((self.server, self.rival), folders, strict=True)
            )
        )
        assert {account.status for account in accounts} <= {0, 3}, [account.text for account in accounts]
        self.check()

    def second_run(self) -> None:
        """Start a run in another PID namespace while one lives: it is refused."""
        account = self.until_stopped("train", "select", "export")
        if account is None:
            return
        self.acts["second run"] += 1
        status, line = run_elsewhere(self.store.uri, self.environment)
        self.story.append(f"a second run in another PID namespace: {status} {line}")
        assert status in (2, 3), line
        assert status == 3 or "locked by run" in line, line
        self.wake(account)
        self._note(self.server.rest())
        self.check()

    def until_stopped(self, *stages: str) -> Account | None:
        """Run until a run stops in one of the stages; None if there is no round to run."""
        stage = self.random.choice(stages)
        for _ in range(PATIENCE):
            self.answerable()
            account = self.run(stop=stage)
            if account.stopped:
                return account
        return None

    def answerable(self) -> None:
        """Deliver something new, so that a round is due."""
        self.vandal.repeat_event_ids()

    def sleeper(self, stage: str, before: int) -> bool:
        """Stop a stage before one of its writes, let another run export, and wake the stage: it can change nothing.

        Args:
            stage: the stage that stops.
            before: the number of the write before which it stops, from 1.

        Returns:
            Whether the stage had that many writes.
        """
        self.answerable()
        orphan = self.random.random() < 0.5
        account = self.run(stop=stage, before=before, orphan=orphan)
        if not account.stopped:
            self.check()
            return False
        self.acts["sleeper"] += 1
        self.story.append(f"stop {stage} before write {before}{', its driver killed' if orphan else ''}")
        if orphan:
            self._note(self.server.rest())
        else:
            self.command("unlock", self.store.uri, server=self.rival)
        for _ in range(PATIENCE):
            if self.run(self.rival).status == 0:
                break
        else:
            raise AssertionError(f"a sleeping {stage} keeps others out\n{self.log()}\n{self}")
        self.check()
        before_waking = self.committed()
        self.wake(account)
        if not orphan:
            self._note(self.server.rest())
        else:
            _wait_for_end(account.stopped)
        self.check()
        after = self.committed()
        assert {number: after[number] for number in before_waking} == before_waking, "what was committed stays"
        return True

    def committed(self) -> dict[int, tuple[str, ...]]:
        """Return, by round, the objects and the model that its record names, once it is committed."""
        return {
            record.number: (*sorted(record.objects.values()), record.model)
            for record in rounds.read_all(self.store)
            if record.is_committed
        }

    def promote_during_clean(self) -> None:
        """Choose a champion while old models are removed."""
        numbers = [record.number for record in rounds.read_all(self.store) if record.is_committed and record.model]
        if not numbers:
            return
        self.acts["promote during clean"] += 1
        chosen = str(self.random.choice(numbers))
        delay = self.random.uniform(0, 0.5)

        def promote() -> Account:
            time.sleep(delay)
            return self.command("promote", self.store.uri, "--round", chosen, server=self.rival)

        together(promote, lambda: self.command("clean", self.store.uri, "--keep-rounds", "0", "--yes"))
        self.check()
        found = self.command("doctor", self.store.uri)
        assert "inconsistent" not in found.text, found.text

    def move_clock(self) -> None:
        """Do a run on a machine whose clock is wrong: on S3 it is refused, a folder cannot tell."""
        self.acts["clock"] += 1
        self.answerable()
        seconds = self.random.choice([-7_200, -90, 90, 7_200, 40 * 86_400])
        self.story.append(self.clock.move(seconds))
        before = self.committed()
        account = self.run(self.moved)
        self.clock.move(0)
        if self.store.uri.startswith("s3:"):
            assert account.status in (2, 3), "a clock that is wrong by more than a minute is refused"
            assert self.committed() == before
        self.check()

    def abandon(self) -> None:
        """Kill a run in its middle, and give its round up."""
        self.answerable()
        self.run(kill=self.random.choice(("train", "score-1", "select")), after=0.05)
        account = self.command("round", self.store.uri, "--abandon", "--reason", "the adversary")
        self.acts["abandon"] += account.status == 0
        self.check()

    def check(self) -> None:
        """Compare the ledger with its twin; an orphan that writes at this moment is waited for."""
        self.checks += 1
        self.vandal.inbox.files()
        for patience in (0.5, 1, 2, 4, None):
            found = self._disagreements()
            if not found:
                return
            if patience is not None:
                time.sleep(patience)
        raise AssertionError("\n".join([*found, "", *self.story[-12:]]))

    def _disagreements(self) -> list[str]:
        now = datetime.now(UTC)
        settings = rounds.read_settings(self.store)
        plain = Settings.of(settings.model_dump(mode="json"))
        try:
            with open_ledger(self.store, settings, now) as ledger:
                history, found = history_of(ledger, self.store, self.vandal.inbox, plain, now, self.judged)
                return [*found, *disagreements(ledger, history, now, plain)]
        except KeyError as error:
            return [f"content {error} of an inbox file was never seen"]

    def __str__(self) -> str:
        seconds = sum(sum(each) for each in self.seconds.values())
        return "\n".join(
            [
                f"{self.checks} comparisons with the twin, {len(self.committed())} rounds committed",
                f"runs by status: {dict(self.statuses)}; {seconds:.0f} s of stages",
                f"kills: {self.kills.total()} ({', '.join(f'{n} {stage}' for stage, n in self.kills.items())})",
                f"acts: {', '.join(f'{n} {act}' for act, n in self.acts.items())}",
            ]
        )


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


@contextmanager
def campaign(
    folder: Path,
    store: Store,
    manifest: Path,
    data_uri: str,
    environment: dict[str, str],
    seed: int,
    clocks: bool = True,
) -> Iterator[Campaign]:
    """Make the project and start its servers, the one with another clock if that is wanted."""
    make(store, manifest, data_uri)
    clock = Clock(folder / "clock")
    with ExitStack() as stack:
        servers = [stack.enter_context(stage_server(environment, name)) for name in ("run", "rival")]
        moved = stack.enter_context(stage_server({**environment, **clock.environment}, "moved")) if clocks else None
        samples = [f"digit-{number:04d}" for number in range(60)]
        war = Campaign(
            *(store, *servers, moved, clock, environment, folder),
            *(manifest.parent / "answers.csv", random.Random(seed), samples),
        )
        try:
            yield war
        finally:
            for pid in war.asleep:
                os.kill(pid, signal.SIGKILL)  # the server would wait for it


def attack(war: Campaign, times: int, kills: int, acts: tuple[Callable[[], object], ...], group: int = 3) -> None:
    """Do each act ``times`` times, those on files in groups, with kills in between, in an order made by chance."""
    plan: list[Callable[[], object]] = [act for act in acts for _ in range(times)]
    files = [act for act in FILE_ACTS for _ in range(times)]
    war.random.shuffle(files)
    groups = [files[start : start + group] for start in range(0, len(files), group)]
    for number, chosen in enumerate(groups):
        change = war.change_files_under_a_run if number % 2 else war.change_files
        plan.append(lambda change=change, chosen=chosen: change(*chosen))
    plan += [war.killed_run] * kills
    war.random.shuffle(plan)
    for act in plan:
        act()
        war.until_done()


def sweep(war: Campaign, stages: tuple[str, ...], step: int) -> None:
    """Stop stages before each of their writes, or before each second one, one after the other."""
    for stage in stages:
        before = 1
        while war.sleeper(stage, before):
            before += step
        war.until_done()


def test_the_ledger_equals_its_twin_after_each_act_of_an_adversary(tmp_path: Path):
    manifest = write_digits(tmp_path / "digits", labelled=12, test=8, pool=60)
    store = open_store(file_uri(tmp_path / "project"))
    with campaign(tmp_path, store, manifest, file_uri(manifest.parent), {}, seed=1, clocks=False) as war:
        war.until_done()
        war.sleeper("export", 3)
        attack(war, 1, 1, (war.two_drops, war.promote_during_clean, war.abandon), group=4)
    assert war.acts["sleeper"] == 1
    assert set(war.acts) >= {*FILE_ACTS, "two drops", "promote during clean"}


@pytest.mark.faults
def test_no_act_of_an_adversary_sticks_or_misleads_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    manifest = write_digits(tmp_path / "digits", labelled=12, test=8, pool=400)
    store = open_store(file_uri(tmp_path / "project"))
    with campaign(tmp_path, store, manifest, file_uri(manifest.parent), {}, seed=2) as war:
        long_form(war, capsys, step=1, times=7, kills=40)


@pytest.mark.faults
@pytest.mark.s3
def test_no_act_of_an_adversary_sticks_or_misleads_on_a_failing_network(
    tmp_path: Path, s3_server: S3Server, capsys: pytest.CaptureFixture[str]
):
    manifest = write_digits(tmp_path / "digits", labelled=12, test=8, pool=400)
    store = open_store(f"s3://{s3_server.bucket}/adversary")
    proxy = Proxy(s3_server.endpoint, stall_seconds=3)
    environment = s3_server.environment | {"AWS_ENDPOINT_URL_S3": proxy.endpoint}
    try:
        with proxy.running(), campaign(tmp_path, store, manifest, file_uri(manifest.parent), environment, 3) as war:
            proxy.disturb(0.01, seed=3)
            long_form(war, capsys, step=4, times=3, kills=20)
    finally:
        with capsys.disabled():
            print(f"{proxy.done.total()} faults in {len(proxy.seen)} requests: {dict(proxy.done)}")
    assert proxy.done.total() >= 100
    assert set(proxy.done) == set(FAULTS)


def long_form(war: Campaign, capsys: pytest.CaptureFixture[str], *, step: int, times: int, kills: int) -> None:
    """Stop the stages that write to the project before each ``step``th write; then do every act, and kill runs."""
    war.until_done()
    try:
        sweep(war, ("ingest", "evaluate", "export", "finish"), step)
        acts = (war.two_drops, war.second_run, war.promote_during_clean, war.abandon, war.move_clock)
        attack(war, times, kills, acts)
    finally:
        with capsys.disabled():
            print(f"\n\n{war.store.uri}\n{war}")
    assert all(war.acts[act] >= times for act in (*FILE_ACTS, "two drops", "second run", "sleeper", "clock"))
