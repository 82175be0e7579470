"""A round whose model comes out with other bits when it is resumed finishes all the same."""

import json
import shutil
from pathlib import Path

from alfamix_core.project import champion, models, rounds
from alfamix_core.storage import file_uri, open_store
from tests.e2e.conftest import INIT, SMALL, Command, produced, settings
from tests.e2e.test_killed import kill_in


def test_a_round_that_was_killed_after_evaluate_finishes_elsewhere_with_another_number_of_threads(
    tmp_path: Path, digits: Path, alfamix: Command, environment: dict[str, str]
):
    project = tmp_path / "project"
    alfamix("init", project, *INIT, "--data-prefix", digits.parent, *settings(*SMALL))
    alfamix("drop", project, digits)
    kill_in("export", project, environment)
    store = open_store(file_uri(project))
    killed = store.folders("models")
    assert len(killed) == 1, "evaluate was over"
    if rounds.read(store, 1)[0].state == "planned":
        assert champion.read(store)[0].round is None, "nothing is promoted before the round is committed"
    # nothing is cached there, and the training's checkpoint is gone: all of it is computed again
    environment |= {"OMP_NUM_THREADS": "2", "ALFAMIX_WORK": str(tmp_path / "elsewhere")}
    shutil.rmtree(project / "rounds" / "000001" / "run" / "train", ignore_errors=True)
    alfamix("round", project)
    record, _ = rounds.read(store, 1)
    assert record.state == "exported"
    assert len(produced(store, 1, "questions")) == 20
    assert champion.read(store)[0].model == record.model
    models.verify(store, record.model)


def test_a_round_that_the_quarantine_stopped_finishes_with_fresh_once_the_files_are_repaired(
    tmp_path: Path, digits: Path, alfamix: Command
):
    whole = {path: path.read_bytes() for path in sorted(digits.parent.glob("digit-000*.png"))}
    for path in whole:
        path.write_bytes(b"")
    project = tmp_path / "project"
    alfamix("init", project, *INIT, "--data-prefix", digits.parent, *settings(*SMALL, "limits.quarantine_share=0.01"))
    alfamix("drop", project, digits)
    assert "10 of 280 samples cannot be read" in alfamix("round", project, status=2).stderr
    store = open_store(file_uri(project))
    (first,) = store.folders("models")
    assert champion.read(store)[0].round is None, "the gate spoke before any promotion"
    for path, content in whole.items():
        path.write_bytes(content)
    assert "10 of 280 samples cannot be read" in alfamix("round", project, status=2).stderr, "all of it is cached"
    alfamix("round", project, "--fresh")
    record, _ = rounds.read(store, 1)
    assert (record.state, record.fresh, record.key[-2:]) == ("exported", 1, "-1")
    assert record.outcome is not None
    assert record.outcome.quarantined == 0
    assert record.model != first, "ten more labels"
    assert champion.read(store)[0].model == record.model
    assert json.loads(alfamix("doctor", project, "--deep", "--json").stdout) == []
