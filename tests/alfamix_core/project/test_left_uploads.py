"""Uploads of large files whose process was killed: on S3 their parts are invisible, but paid for."""

from datetime import UTC, datetime, timedelta

import boto3
import pytest

from alfamix_core.errors import StorageError
from alfamix_core.project import cleaning, doctor
from alfamix_core.project.initialise import initialise
from alfamix_core.records.project import Project
from alfamix_core.storage import open_store

pytestmark = pytest.mark.s3


@pytest.fixture
def left(s3_server, request):
    """A project, and an upload of two that was begun and left, in a bucket where another project has one too."""
    name = f"left-{id(request)}"
    store = open_store(f"s3://{s3_server.bucket}/{name}")
    initialise(store, Project(name="p", classes=("cat", "dog")))
    client = boto3.client("s3")
    for key in (f"{name}/models/000001/model.safetensors", f"{name}-other/models/000001/model.safetensors"):
        client.create_multipart_upload(Bucket=s3_server.bucket, Key=key)
    yield store
    client.close()


def test_the_doctor_names_an_upload_that_was_left_and_clean_gives_it_up(left):
    now = datetime.now(UTC)
    (upload,) = left.unfinished_uploads()
    assert upload.key == "models/000001/model.safetensors"
    assert abs(upload.begun - now) < timedelta(hours=1)
    assert doctor.examine(left, now) == [], "it may be going on"
    cleaning.clean(left, 0, now)
    assert left.unfinished_uploads() == [upload]
    later = now + timedelta(days=2)
    (finding,) = doctor.examine(left, later)
    assert (finding.kind, finding.key, finding.do) == ("orphaned", upload.key, "alfamix clean")
    cleaning.clean(left, 0, later)
    assert left.unfinished_uploads() == []
    left.abort_upload(upload)
    assert doctor.examine(left, later) == []


def test_an_upload_that_fails_leaves_nothing(left, monkeypatch, tmp_path):
    """The second part cannot be sent, and boto3 gives the upload up."""
    (before,) = left.unfinished_uploads()
    path = tmp_path / "large"
    path.write_bytes(bytes(20 * 2**20))
    real, calls = left._client().upload_part, []

    def upload_part(**arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("broken")
        return real(**arguments)

    monkeypatch.setattr(left._client(), "upload_part", upload_part)
    with pytest.raises((StorageError, OSError)):
        left.create_from("models/000002/model.safetensors", path)
    assert calls
    assert left.unfinished_uploads() == [before]
    assert left.entry("models/000002/model.safetensors") is None
