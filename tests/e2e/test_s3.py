"""The same round with project and samples on a real S3 server."""

import json
from pathlib import Path

import pytest

from alfamix_core.storage import open_store
from tests.conftest import S3Server
from tests.e2e.conftest import INIT, SMALL, Command, produced, settings


@pytest.mark.s3
def test_a_round_on_s3_refers_to_a_listed_prefix_and_asks(
    digits: Path, alfamix: Command, s3_server: S3Server, environment: dict[str, str]
):
    environment |= s3_server.environment
    data = open_store(f"s3://{s3_server.bucket}/e2e-data")
    for path in sorted(digits.parent.glob("digit-00*.png")):
        data.create_from(f"unlabelled/{path.name}", path)
    for index in range(20):
        data.create_from(f"labelled/{index % 2}/{index}.png", digits.parent / f"digit-{100 + index:04d}.png")
    project = f"s3://{s3_server.bucket}/e2e-project"
    alfamix("init", project, *INIT, "--data-prefix", data.uri, *settings(*SMALL))
    alfamix("drop", project, f"{data.uri}/labelled/", "--labelled", "--name", "first")
    output = alfamix("drop", project, f"{data.uri}/unlabelled/").stdout
    assert "100 samples referred to in place" in output
    alfamix("round", project)

    status = json.loads(alfamix("status", project, "--json").stdout)
    assert [entry["state"] for entry in status["rounds"]] == ["exported"]
    assert status["counts"] == status["counts"] | {"queried": 20, "pool": 80, "train": 20}
    assert status["champion"]["round"] == 1
    store = open_store(project)
    questions = produced(store, 1, "questions")
    assert {question["uri"].rsplit("/", 1)[0] for question in questions} == {f"{data.uri}/unlabelled"}
    assert store.read(questions[0]["thumbnail"]).data
    refused = alfamix("drop", project, f"s3://{s3_server.bucket}/elsewhere/", status=2).stderr
    assert len(refused.splitlines()) == 1
