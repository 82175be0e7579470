from alfamix_core.records.stage import Quarantined, StageLog, StageRun, read_logs


def run(stage, shard=""):
    return StageRun(stage=stage, shard=shard, seconds=1.5, rows=2)


def bad(key):
    return Quarantined(sample_id=key, uri=f"file:///{key}", reason="empty file")


def test_logs_of_shards_that_share_a_past_are_merged_each_run_and_sample_once(tmp_path):
    train = run("train")
    for shard in "01":
        (tmp_path / shard).mkdir()
        log = StageLog(runs=(train, run("embed", shard)), quarantined=(bad("z"), bad("s" + shard)))
        log.write(tmp_path / shard)
    merged = read_logs([tmp_path / "0", tmp_path / "1"])
    assert merged.runs == (train, run("embed", "0"), run("embed", "1"))
    assert merged.quarantined == (bad("s0"), bad("s1"), bad("z"))


def test_a_log_is_read_back(tmp_path):
    log = StageLog(runs=(run("train"),))
    log.write(tmp_path)
    assert read_logs([tmp_path]) == log
