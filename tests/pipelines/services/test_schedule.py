"""One recurring run a project, and no run in flight killed."""

import pytest

from alfamix_core.errors import StorageError
from pipelines.services import cron, schedule

URI = "s3://bucket/birds"
SIX, SEVEN = cron.parse("0 0 6 * * *"), cron.parse("0 0 7 * * *")


def modes(server):
    return {key: each["mode"] for key, each in server.recurring.items()}


def test_a_schedule_is_one_recurring_run_without_catching_up(kubeflow, server, settings):
    change = schedule.put(kubeflow, settings, URI, SIX)
    made = server.recurring[change.schedule.recurring_run_id]
    assert (made["no_catchup"], made["max_concurrency"], made["mode"]) == (True, 1, "ENABLE")
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 6 * * *"
    assert made["runtime_config"]["parameters"] == {"project_uri": URI, "force": False, "fresh": False}
    assert made["description"] == f"Rounds of {URI}: at 06:00:00 UTC, every day. Made on Kubeflow Pipelines 2.17.0"
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
    assert asked == ["recurringruns", f"{old}:disable", "recurringruns", old]


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


def test_when_the_new_one_cannot_be_made_the_old_one_goes_on(kubeflow, server, settings):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id

    server.failing, server.failing_on = [503], "POST /apis/v2beta1/recurringruns"
    with pytest.raises(StorageError, match="HTTP 503"):
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
    server.recurring[old]["description"] = f"Rounds of {URI}: at 06:00:00 UTC, every day"
    assert "was made on an unknown release" in schedule.outdated(kubeflow, settings, URI)
    assert not schedule.put(kubeflow, settings, URI, SIX).unchanged


def test_renewing_makes_it_again_although_nothing_differs(kubeflow, server, settings):
    old = schedule.put(kubeflow, settings, URI, SIX).schedule.recurring_run_id
    change = schedule.put(kubeflow, settings, URI, SIX, renew=True)
    assert (change.unchanged, change.deleted) == (False, (old,))
    assert list(server.recurring) == [change.schedule.recurring_run_id]
