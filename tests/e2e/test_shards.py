"""The number of shards and the size of blocks cannot show in the queries, from images to queries."""

import json
from collections import Counter
from pathlib import Path

import pytest

from alfamix_core.acquisition import strategies
from alfamix_core.project import rounds
from alfamix_core.project.inbox import deliveries
from alfamix_core.project.initialise import initialise
from alfamix_core.records.lock import Holder
from alfamix_core.records.project import Project
from alfamix_core.storage import file_uri, open_store
from components.embed import stage as embed
from components.ingest import stage as ingest
from components.score import stage as score
from components.select import stage as select
from components.snapshot import stage as snapshot
from components.train import stage as train
from tests.e2e.conftest import INIT, SMALL, Command, settings

RULES = {
    "policy": {
        "excluded_groups": ["scanner-0"],
        "max_per_group": 6,
        "class_shares": {"8": 0.1, "1": 0.05},
        "min_distance": 0.5,
    },
    "audit": {"share": 0.2, "per_round": 4},
}


def queries(
    project: Path, data: Path, out: Path, strategy: str, shards: int, block_rows: int, rules: dict[str, object]
) -> list[dict[str, object]]:
    """Run the stages of a first round in this process; return the lines of its queries."""
    store = open_store(file_uri(project))
    text = {
        "name": "shards",
        "classes": [str(digit) for digit in range(10)],
        "budget": 20,
        "strategy": {"name": strategy},
        "model": {"backbone": "mlp", "embedding_batch": 64, "dropout": 0.2},
        "image": {"size": 8, "channels": "grey"},
        "training": {"max_epochs": 10},
        "round": {"shard_size": 1, "max_shards": shards},
        "data_prefixes": [file_uri(data.parent)],
        **rules,
    }
    initialise(store, Project.parse(json.dumps(text), "project"))
    deliveries.register(store, file_uri(data))
    key = ingest.run(store.uri, Holder(run_id="test"))
    names = snapshot.run(store.uri, key, str(out / "snapshot"), str(out / "champion"))
    assert names == [str(shard) for shard in range(shards)]
    train.run(*(str(out / name) for name in ("snapshot", "champion", "model", "labelled")))
    for name in names:
        features, scores = str(out / f"features-{name}"), str(out / f"scores-{name}")
        embed.run(name, str(out / "snapshot"), str(out / "model"), features)
        score.run(name, str(out / "snapshot"), str(out / "model"), str(out / "labelled"), features, scores, block_rows)
    shuffled = [str(out / f"scores-{name}") for name in reversed(names)]
    select.run(str(out / "snapshot"), str(out / "model"), str(out / "labelled"), shuffled, str(out / "queries"))
    assert rounds.numbers(store) == [1]
    return [json.loads(line) for line in (out / "queries" / "queries.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("rules", [{}, RULES], ids=["free", "rules"])
@pytest.mark.parametrize("strategy", strategies.names())
def test_queries_are_the_same_for_1_2_and_8_shards_and_any_block_size(
    tmp_path: Path, digits: Path, strategy: str, rules: dict[str, object]
):
    found = [
        queries(tmp_path / f"project-{case}", digits, tmp_path / f"run-{case}", strategy, shards, block_rows, rules)
        for case, (shards, block_rows) in enumerate([(1, 8192), (2, 50), (8, 7)])
    ]
    assert len(found[0]) == 20
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_queries_are_the_same_for_1_and_64_shards(tmp_path: Path, digits: Path):
    found = [
        queries(tmp_path / f"project-{shards}", digits, tmp_path / f"run-{shards}", "alfamix", shards, 50, RULES)
        for shards in (1, 64)
    ]
    assert len(found[0]) == 20
    assert found[1] == found[0]


@pytest.mark.faults
def test_the_local_engine_runs_64_shards_and_asks_what_it_asks_with_1(tmp_path: Path, digits: Path, alfamix: Command):
    """128 processes that import torch: minutes."""
    asked = []
    for shards in (1, 64):
        project = tmp_path / f"project-{shards}"
        of_shards = ("round.shard_size=1", f"round.max_shards={shards}")
        alfamix("init", project, *INIT, *settings(*SMALL[:1], *of_shards, *SMALL[3:]))
        alfamix("drop", project, digits)
        alfamix("round", project)
        asked.append([json.loads(line) for line in (project / "queue" / "000001.jsonl").read_text().splitlines()])
        record = json.loads((project / "rounds" / "000001" / "round.json").read_text())
        assert (record["shards"], record["state"]) == (shards, "exported")
    keys = ("sample_id", "rank", "suggestion")
    assert [[line[key] for key in keys] for line in asked[0]] == [[line[key] for key in keys] for line in asked[1]]


def test_the_rules_hold_and_the_audit_is_asked_beside_the_strategy(tmp_path: Path, digits: Path):
    lines = queries(tmp_path / "project", digits, tmp_path / "run", "margin", 2, 100, RULES)
    group = {json.loads(line)["id"]: json.loads(line)["group"] for line in digits.read_text().splitlines()}
    chosen = [line for line in lines if not line.get("audit")]
    assert (len(chosen), len(lines)) == (16, 20)
    groups = Counter(group[str(line["sample_id"])] for line in chosen)
    assert "scanner-0" not in groups
    assert max(groups.values()) <= 6
    classes = Counter(line["suggestion"] for line in chosen)
    assert classes["8"] <= 2
    assert classes["1"] <= 1
    audit = [line for line in lines if line.get("audit")]
    assert all("position" not in line and "score" not in line for line in audit)
    assert [line["rank"] for line in lines] == list(range(20))
