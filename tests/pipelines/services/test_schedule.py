"""One recurring run per project, and no run in flight killed, even if the command dies or two people set it."""

import random
import threading
from datetime import UTC, datetime, timedelta

import pytest

from alfamix_core.errors import InputError, StorageError
from pipelines.engines.kubeflow import Kubeflow
from pipelines.services import cron, schedule
from tests.servers.kubeflow import RefusedError

URI = "s3://bucket/birds"
SIX, SEVEN, EIGHT = (cron.parse(f"0 0 {hour} * * *") for hour in (6, 7, 8))


def modes(server):
    return {key: each["mode"] for key, each in server.recurring.items()}


def test_a_schedule_is_one_recurring_run_without_catching_up(kubeflow, server, settings):
    change = schedule.put(kubeflow, settings, URI, SIX)
    made = server.recurring[change.schedule.recurring_run_id]
    assert (made["no_catchup"], made["max_concurrency"], made["mode"]) == (True, 1, "ENABLE")
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 6 * * *"
    assert made["runtime_config"]["parameters"] == {"project_uri": URI, "force": False, "fresh": False}
    assert made["description"] == f"Rounds of {URI}: At 06:00 (UTC). Made on Kubeflow Pipelines 2.17.0"
    assert schedule.show(kubeflow, settings, URI) == [change.schedule]


def test_setting_it_twice_has_no_effect(kubeflow, server, settings):
    first = schedule.put(kubeflow, settings, URI, SIX)
    second = schedule.put(kubeflow, settings, URI, SIX)
    assert (second.schedule, second.unchanged) == (first.schedule, True)
    assert len(server.recurring) == 1


def test_another_takes_its_place_and_the_old_one_is_deleted(kubeflow, server, settings):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    server.move(server.fire(old), "SUCCEEDED")
    change = schedule.put(kubeflow, settings, URI, SEVEN)
    assert change.deleted == (old,)
    assert modes(server) == {change.schedule.recurring_run_id: "ENABLE"}
    asked = [path.rsplit("/", 1)[1] for method, path in server.requests if method != "GET" and "recurring" in path]
    assert asked == ["recurringruns", "recurringruns", f"{old}:disable", old]


def test_a_run_in_flight_is_not_killed_and_the_next_command_clears_up(kubeflow, server, settings):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    run = server.fire(old)
    change = schedule.put(kubeflow, settings, URI, SEVEN)
    new = change.schedule.recurring_run_id
    assert (change.deleted, change.left) == ((), (old,))
    assert modes(server) == {old: "DISABLE", new: "ENABLE"}
    assert schedule.put(kubeflow, settings, URI, SEVEN).left == (old,)
    assert server.runs[run]["state"] == "RUNNING"
    server.move(run, "SUCCEEDED")
    again = schedule.put(kubeflow, settings, URI, SEVEN)
    assert (again.unchanged, again.deleted, again.left) == (True, (old,), ())
    assert modes(server) == {new: "ENABLE"}


def test_removing_lets_a_run_in_flight_go_on(kubeflow, server, settings):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    run = server.fire(old)
    assert schedule.remove(kubeflow, settings, URI).left == (old,)
    assert (modes(server), server.runs[run]["state"]) == ({old: "DISABLE"}, "RUNNING")
    server.move(run, "FAILED")
    assert schedule.remove(kubeflow, settings, URI).deleted == (old,)
    assert schedule.remove(kubeflow, settings, URI).unchanged
    assert server.recurring == {}


@pytest.mark.parametrize(("status", "error"), [(503, StorageError), (400, InputError)])
def test_when_the_new_one_cannot_be_made_the_old_one_stays_in_force(kubeflow, server, settings, status, error):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    server.failing, server.failing_on = [status] * 10, "POST /apis/v2beta1/recurringruns"
    with pytest.raises(error, match=f"HTTP {status}"):
        schedule.put(kubeflow, settings, URI, SEVEN)
    assert modes(server) == {old: "ENABLE"}


def test_every_page_of_recurring_runs_is_read_and_other_projects_are_left_alone(kubeflow, server, settings):
    others = [schedule.put(kubeflow, settings, f"s3://bucket/{n}", SIX).schedule.recurring_run_id for n in range(4)]
    mine = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    assert [each.recurring_run_id for each in schedule.show(kubeflow, settings, URI)] == [mine]
    assert schedule.remove(kubeflow, settings, URI).deleted == (mine,)
    assert sorted(server.recurring) == sorted(others)


def test_two_that_someone_made_become_one(kubeflow, server, settings):
    first = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    server.recurring["by-hand"] = server.recurring[first] | {"recurring_run_id": "by-hand"}
    change = schedule.put(kubeflow, settings, URI, SIX)
    assert change.unchanged
    assert len(server.recurring) == 1


def test_after_an_upgrade_of_kubeflow_the_same_schedule_is_made_again(kubeflow, server, settings):
    """The recurring run has the old release's driver in it, and would fail in its first step."""
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    assert schedule.outdated(kubeflow, settings, URI) == ""
    server.release = "2.18.0"
    assert schedule.outdated(kubeflow, settings, URI) == (
        f"the schedule 0 0 6 * * * (recurring run {old}) was made on Kubeflow Pipelines 2.17.0 and the API is 2.18.0: "
        "its runs start with the driver of the old release"
    )
    change = schedule.put(kubeflow, settings, URI, SIX)
    assert (change.unchanged, change.deleted, change.schedule.release) == (False, (old,), "2.18.0")
    assert schedule.put(kubeflow, settings, URI, SIX).unchanged
    assert schedule.outdated(kubeflow, settings, URI) == ""


def test_a_schedule_from_before_releases_were_recorded_is_made_again(kubeflow, server, settings):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    server.recurring[old]["description"] = f"Rounds of {URI}: At 06:00 (UTC)"
    assert "was made on an unknown release" in schedule.outdated(kubeflow, settings, URI)
    assert not schedule.put(kubeflow, settings, URI, SIX).unchanged


def test_renewing_makes_it_again_although_nothing_differs(kubeflow, server, settings):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    change = schedule.put(kubeflow, settings, URI, SIX, renew=True)
    assert (change.unchanged, change.deleted) == (False, (old,))
    assert list(server.recurring) == [change.schedule.recurring_run_id]


@pytest.mark.parametrize("ago", [0, 5, 11])
def test_a_recurring_run_is_not_deleted_while_a_run_that_is_not_listed_yet_may_have_begun(
    kubeflow, server, settings, monkeypatch, ago
):
    """In release 2.17 the row of a scheduled run is written when its workflow is reported, later than it begins."""
    monkeypatch.setattr(schedule, "GRACE", timedelta(minutes=10))
    at = datetime.now(UTC) - timedelta(minutes=ago)
    old = schedule.put(kubeflow, settings, URI, cron.parse(f"0 {at.minute} {at.hour} * * *")).schedule.recurring_run_id
    later = at + timedelta(hours=5)
    change = schedule.put(kubeflow, settings, URI, cron.parse(f"0 0 {later.hour} * * *"))
    assert (change.deleted, change.left) == (((), (old,)) if ago < 10 else ((old,), ()))
    if ago < 10:
        server.recurring[old]["updated_at"] = (at - timedelta(minutes=11 - ago)).isoformat()
        assert schedule.remove(kubeflow, settings, URI).deleted[0] == old


@pytest.mark.parametrize("config", [{"parameters": {"project_uri": "s3://other"}}, {"parameters": {}}, {}])
def test_a_run_in_flight_holds_its_recurring_run_whatever_its_parameters_and_its_age(
    kubeflow, server, settings, config
):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    run = server.fire(old)
    server.runs[run]["runtime_config"] = config
    server.age(run, 1000)
    for change in (schedule.put(kubeflow, settings, URI, SEVEN), schedule.put(kubeflow, settings, URI, SEVEN)):
        assert (change.deleted, change.left) == ((), (old,))
    assert server.runs[run]["state"] == "RUNNING"


# what is there is compared whole


EDITS = {
    "service_account": "other",
    "description": "by hand",
    "max_concurrency": "2",
    "no_catchup": False,
    "display_name": "by-hand",
    "mode": "DISABLE",
    "trigger": {"cron_schedule": {"cron": "0 0 6 * * MON"}},
    "runtime_config": {"parameters": {"project_uri": URI, "force": True, "fresh": False}},
    "pipeline_version_reference": {"pipeline_id": "pipeline-1", "pipeline_version_id": "another"},
}
EDITED_INSIDE = {
    "an end": ("trigger", {"cron_schedule": {"cron": "0 0 6 * * *", "end_time": "2030-01-01T00:00:00Z"}}),
    "a start": ("trigger", {"cron_schedule": {"cron": "0 0 6 * * *", "start_time": "2030-01-01T00:00:00Z"}}),
    "an interval": ("trigger", {"periodic_schedule": {"interval_second": "60"}}),
    "a root": (
        "runtime_config",
        {"parameters": {"project_uri": URI, "force": False, "fresh": False}, "pipeline_root": "s3://elsewhere"},
    ),
}


@pytest.mark.parametrize(("field", "value"), [*EDITS.items(), *EDITED_INSIDE.values()], ids=[*EDITS, *EDITED_INSIDE])
def test_a_recurring_run_that_somebody_edited_in_any_field_is_replaced(
    kubeflow, server, settings, monkeypatch, field, value
):
    monkeypatch.setattr(kubeflow, "platform", kubeflow.platform.model_copy(update={"service_account": "rounds"}))
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    assert server.recurring[old]["service_account"] == "rounds"
    assert schedule.put(kubeflow, settings, URI, SIX).unchanged
    server.recurring[old][field] = value
    change = schedule.put(kubeflow, settings, URI, SIX)
    new = change.schedule.recurring_run_id
    if field == "trigger" and "periodic_schedule" in value:
        assert (change.unchanged, change.left) == (False, (old,)), "when it last began a run is not known"
        del server.recurring[old]
    else:
        assert (change.unchanged, change.deleted) == (False, (old,))
    assert modes(server) == {new: "ENABLE"}
    assert schedule.put(kubeflow, settings, URI, SIX).unchanged


@pytest.mark.parametrize(("before", "after"), [("", "rounds"), ("rounds", "others"), ("rounds", "")])
def test_another_service_account_renews_the_schedule(kubeflow, server, settings, monkeypatch, before, after):
    """Without one the API fills in its own, so that the row alone does not tell what was asked for."""
    for account, unchanged in ((before, False), (before, True), (after, False), (after, True)):
        monkeypatch.setattr(kubeflow, "platform", kubeflow.platform.model_copy(update={"service_account": account}))
        assert schedule.put(kubeflow, settings, URI, SIX).unchanged is unchanged
        assert [row["service_account"] for row in server.recurring.values()] == [account or "pipeline-runner"]


# if the command dies, or two people set it


def enabled(server):
    return [row for row in server.recurring.values() if row["mode"] == "ENABLE"]


def heals(kubeflow, server, settings, cron):
    """An undisturbed ``set`` leaves exactly one recurring run, which is right, and another one changes nothing."""
    schedule.put(kubeflow, settings, URI, cron)
    assert [row["trigger"]["cron_schedule"]["cron"] for row in server.recurring.values()] == [cron.text]
    assert len(enabled(server)) == 1
    assert schedule.put(kubeflow, settings, URI, cron).unchanged


@pytest.fixture
def never_none(server):
    """Watch that, once a recurring run was enabled, one is enabled after every request."""
    counts = []
    server.after = lambda: counts.append(len(enabled(server)))
    yield counts
    first = next((place for place, count in enumerate(counts) if count), len(counts))
    assert all(counts[first:]), counts


def untidy(kubeflow, server, settings, before):
    """Bring the API into one of the states from which a schedule is set."""
    if before != "nothing":
        old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
        if before == "two":
            server.recurring["by-hand"] = server.recurring[old] | {"recurring_run_id": "by-hand"}


@pytest.mark.parametrize("renew", [False, True])
@pytest.mark.parametrize("before", ["nothing", "one", "two"])
@pytest.mark.parametrize("done", [False, True], ids=["request lost", "answer lost"])
def test_a_command_that_dies_at_any_request_leaves_a_schedule_and_the_next_one_heals_it(
    kubeflow, server, settings, never_none, before, done, renew
):
    died = 0
    for number in range(100):
        server.answers = None
        for name in list(server.recurring):
            del server.recurring[name]
        never_none.clear()
        untidy(kubeflow, server, settings, before)
        server.answers, server.last_wish = number, done
        try:
            schedule.put(kubeflow, settings, URI, SEVEN, renew)
        except StorageError:
            died += 1
        else:
            break
        server.answers = None
        assert before == "nothing" or enabled(server)
        heals(kubeflow, server, settings, SEVEN)
    assert died == number > 5


def test_an_answer_that_is_lost_once_makes_no_second_recurring_run(kubeflow, server, settings, never_none):
    schedule.put(kubeflow, settings, URI, SIX)
    path = "/apis/v2beta1/recurringruns"

    route, lost = server.route, []

    def losing(method, where, *rest):
        answer = route(method, where, *rest)
        if (method, where) == ("POST", path) and not lost:
            lost.append(answer)
            raise RefusedError(504, "lost")
        return answer

    server.route = losing
    change = schedule.put(kubeflow, settings, URI, SEVEN)
    assert list(server.recurring) == [change.schedule.recurring_run_id] == [lost[0]["recurring_run_id"]]


class Turns:
    """Let requests of two clients through in an order that was drawn; who is left alone goes as he likes."""

    def __init__(self, order):
        self.order, self.left, self.condition = list(order), {"a", "b"}, threading.Condition()

    def wait(self, client):
        if client not in self.left:
            return
        with self.condition:
            while self.order and self.order[0] != client and self.order[0] in self.left:
                assert self.condition.wait(30)
            if self.order:
                self.order.pop(0)
            self.condition.notify_all()

    def leave(self, client):
        with self.condition:
            self.left.discard(client)
            self.condition.notify_all()


@pytest.fixture
def two(server):
    """Two clients, whose requests the server tells apart."""
    clients = {}
    for name in "ab":
        clients[name] = Kubeflow(server.endpoint)
        for part in vars(clients[name].client).values():
            if hasattr(part, "api_client"):
                part.api_client.set_default_header("x-client", name)
    yield clients
    for kubeflow in clients.values():
        kubeflow.client._run_api.api_client.rest_client.pool_manager.clear()


@pytest.mark.parametrize("same", [True, False], ids=["the same", "different ones"])
@pytest.mark.parametrize("before", ["nothing", "one", "two"])
@pytest.mark.parametrize("seed", range(4))
def test_two_that_set_a_schedule_together_leave_one(two, kubeflow, server, settings, never_none, before, same, seed):
    drawn = random.Random(seed)
    kubeflow.experiment(settings)
    untidy(kubeflow, server, settings, before)
    server.draw = lambda: f"{drawn.random():.12f}"  # so that neither is the newer by its id alone
    turns = Turns(drawn.choices("ab", k=60))
    server.before = turns.wait
    crons = {"a": SEVEN, "b": SEVEN if same else EIGHT}
    results = {}

    def work(name):
        try:
            results[name] = schedule.put(two[name], settings, URI, crons[name])
        except StorageError as error:
            results[name] = error
        finally:
            turns.leave(name)

    threads = [threading.Thread(target=work, args=name) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert set(results) == {"a", "b"}
    assert not [each for each in results.values() if isinstance(each, StorageError)]
    (kept,) = enabled(server)
    assert kept["trigger"]["cron_schedule"]["cron"] in {cron.text for cron in crons.values()}
    heals(kubeflow, server, settings, SIX)


def test_a_listing_of_recurring_runs_that_never_ends_is_one_line_and_changes_nothing(kubeflow, server, settings):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    looping = {"next_page_token": "again"}
    server.distort = lambda path, answer: answer | (looping if path.endswith("/recurringruns") else {})
    for change in (
        lambda: schedule.put(kubeflow, settings, URI, SEVEN),
        lambda: schedule.remove(kubeflow, settings, URI),
    ):
        with pytest.raises(StorageError) as refused:
            change()
        assert "\n" not in str(refused.value)
    assert modes(server) == {old: "ENABLE"}


@pytest.mark.parametrize("created", ["2026-03-01T12:00:00", "yesterday", "", None, 7])
def test_a_recurring_run_with_an_odd_time_is_replaced_or_ends_with_one_line(kubeflow, server, settings, created):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    server.recurring[old]["created_at"] = created
    lines = []
    try:
        schedule.put(kubeflow, settings, URI, SEVEN)
    except StorageError as error:
        lines.append(str(error))
    assert not any("\n" in line for line in lines)
    assert len(enabled(server)) == 1
