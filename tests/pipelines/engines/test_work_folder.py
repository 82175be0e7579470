"""The files that local runs keep."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from pipelines.engines import work_folder

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_runs_that_begin_within_a_second_have_logs_of_their_own(tmp_path):
    start = threading.Barrier(8)

    def begin(_):
        start.wait()
        return work_folder.new_log(tmp_path, 12, NOON)

    with ThreadPoolExecutor(8) as pool:
        logs = list(pool.map(begin, range(8)))
    names = [
        "round-000012-20260301T120000.log",
        *(f"round-000012-20260301T120000-{again}.log" for again in range(2, 9)),
    ]
    assert sorted(log.name for log in logs) == sorted(names)
    assert all(log.read_bytes() == b"" for log in logs)


def test_the_folder_is_below_that_of_the_variable_or_else_below_the_user_s_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ALFAMIX_WORK", str(tmp_path / "work"))
    assert work_folder.default("s3://bucket/birds").parent == tmp_path / "work"
    monkeypatch.setenv("ALFAMIX_WORK", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert work_folder.default("s3://bucket/birds").parent == tmp_path / "alfamix"
