"""What only S3 must prove: errors a person can act on, lost answers, broken downloads, servers without conditions."""

import hashlib
import os
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from alfamix_core.errors import InputError, MissingObjectError, ObjectChangedError, ObjectExistsError, StorageError
from alfamix_core.storage import open_store
from alfamix_core.storage.connection import Connection

pytestmark = pytest.mark.s3


@pytest.fixture
def bucket(s3_server):
    """The bucket as boto3 sees it, for what our own interface does not do."""
    resource = boto3.resource("s3", endpoint_url=s3_server.endpoint)
    yield resource.Bucket(s3_server.bucket)
    resource.meta.client.close()


@pytest.fixture
def s3_store(s3_server):
    store = open_store(f"s3://{s3_server.bucket}/{uuid.uuid4().hex}")
    yield store
    store.close()


@pytest.fixture
def behind(proxy, s3_server):
    """A store whose requests all go through the proxy."""
    store = open_store(f"s3://{s3_server.bucket}/{uuid.uuid4().hex}")
    assert list(store.list()) == []
    yield store
    store.close()


def test_a_missing_bucket_is_said_and_never_made(s3_server, bucket):
    store = open_store("s3://no-such-bucket/project")
    for use in (lambda: store.read("a"), lambda: store.create("a", b""), lambda: list(store.list())):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value) == (
            f"s3://no-such-bucket/project: the bucket does not exist (at {s3_server.endpoint})"
        )
    assert "no-such-bucket" not in [each["Name"] for each in bucket.meta.client.list_buckets()["Buckets"]]
    store.close()


def test_a_whole_bucket_can_be_a_store(s3_server):
    store = open_store(f"s3://{s3_server.bucket}")
    key = f"{uuid.uuid4().hex}/a"
    store.create(key, b"1")
    assert store.uri_of(key) == f"s3://{s3_server.bucket}/{key}"
    assert key in [entry.key for entry in store.list()]
    store.delete(key)
    store.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AWS_ACCESS_KEY_ID", "the access key is not known there; check the credentials"),
        ("AWS_SECRET_ACCESS_KEY", "the secret key is wrong; check the credentials"),
    ],
)
def test_wrong_credentials_are_said(s3_server, monkeypatch, name, words):
    monkeypatch.setenv(name, "wrong")
    store = open_store(f"s3://{s3_server.bucket}/x")
    with pytest.raises(InputError, match=words):
        store.create("a", b"")
    store.close()


def test_missing_credentials_are_said(s3_server, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InputError, match="no credentials found; set AWS_ACCESS_KEY_ID"):
        open_store(f"s3://{s3_server.bucket}/x").read("a")


def test_a_missing_profile_is_said(s3_server, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError, match="nobody"):
        open_store(f"s3://{s3_server.bucket}/x").read("a")


def test_an_endpoint_that_is_no_url_is_said(s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "seaweedfs")
    with pytest.raises(InputError, match="seaweedfs; check AWS_ENDPOINT_URL"):
        open_store(f"s3://{s3_server.bucket}/x").read("a")


def test_an_endpoint_that_does_not_answer_is_a_storage_error(s3_server, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(StorageError, match=f"^s3://{s3_server.bucket}/x: Could not connect to .*{endpoint}"):
            open_store(f"s3://{s3_server.bucket}/x").read("a")


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "RequestTimeTooSkewed", InputError, "the clock of this machine is wrong"),
        (403, "AccessDenied", InputError, "access is denied"),
        (403, "ExpiredToken", InputError, "the credentials have expired"),
        (400, "AuthorizationHeaderMalformed", InputError, "the bucket is in another region; set AWS_DEFAULT_REGION"),
        (503, "SlowDown", StorageError, "SlowDown.* Some lines of words"),
        (500, "InternalError", StorageError, "InternalError"),
    ],
)
def test_refusals_are_one_line_with_the_right_exit_status(refusing, status, code, kind, words):
    refusing.status, refusing.code = status, code
    store = open_store("s3://bucket/x")
    with pytest.raises(kind, match=f"^s3://bucket/x: .*{words}") as caught:
        store.read("a")
    assert caught.value.exit_status == kind.exit_status
    assert "\n" not in str(caught.value)
    store.close()


def test_a_server_that_ignores_conditions_is_refused(careless):
    store = open_store("s3://bucket/x")
    with pytest.raises(InputError, match=r"s3://bucket/x: the store ignores conditional writes \(If-None-Match\)"):
        store.check_conditional_writes()
    assert careless.objects == {}
    store.close()


@pytest.mark.parametrize("fault", ["refuse", "reset", "lose"])
@pytest.mark.parametrize("faults", [1, 2])
def test_a_write_succeeds_through_failures_of_the_network(behind, proxy, fault, faults):
    proxy.faults += [("PUT", fault)] * faults
    tag = behind.create("a", b"1")
    proxy.faults += [("PUT", fault)] * faults
    tag = behind.swap("a", b"2", tag)
    assert proxy.faults == []
    assert (behind.read("a").data, behind.read("a").tag) == (b"2", tag)
    with pytest.raises(ObjectExistsError):
        behind.create("a", b"2")


def test_an_equal_write_of_somebody_else_is_not_taken_for_ones_own(behind, proxy, s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
    other = open_store(behind.uri)
    other.create("a", b"the same")
    proxy.faults += [("PUT", "lose")]
    with pytest.raises(ObjectExistsError):
        behind.create("a", b"the same")
    other.close()


def test_a_large_upload_succeeds_through_failures_of_the_network(behind, proxy, tmp_path):
    data = os.urandom(20_000_000)
    (tmp_path / "file").write_bytes(data)
    proxy.faults += [("PUT", "refuse"), ("PUT", "lose"), ("POST .*uploads", "reset")]
    assert behind.create_from("a", tmp_path / "file") == hashlib.sha256(data).hexdigest()
    assert proxy.faults == []
    with behind.open("a") as stream:
        assert stream.read() == data


@pytest.mark.parametrize("times", [1, 2])
def test_a_large_upload_whose_end_was_not_heard_is_ones_own(behind, proxy, tmp_path, times):
    (tmp_path / "file").write_bytes(b"1" * 20_000_000)
    proxy.faults += [("POST .*uploadId=", "lose")] * times
    behind.create_from("a", tmp_path / "file")
    assert proxy.faults == []
    assert behind.entry("a").size == 20_000_000


def test_a_large_file_that_is_there_is_not_sent_again(behind, proxy, tmp_path):
    (tmp_path / "file").write_bytes(b"1" * 20_000_000)
    behind.create_from("a", tmp_path / "file")
    proxy.seen.clear()
    behind.create_from("a", tmp_path / "file")
    assert {what.split()[0] for what in proxy.seen} == {"HEAD"}


@pytest.mark.parametrize("fault", ["truncate", "reset", "refuse", "lose"])
def test_a_download_is_whole_through_failures_of_the_network(behind, proxy, tmp_path, fault):
    data = os.urandom(5_000_000)
    (tmp_path / "file").write_bytes(data)
    behind.create_from("a", tmp_path / "file")
    behind.create("b", data)
    for key in "ab":
        proxy.faults += [("GET", fault)]
        assert behind.read(key).data == data
        proxy.faults += [("GET", fault)]
        behind.fetch(key, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data
        assert proxy.faults == []


def test_a_download_is_never_made_of_two_versions(behind, proxy):
    tag = behind.create("a", os.urandom(5_000_000))
    proxy.faults += [("GET", "truncate")]
    with behind.open("a") as stream:
        behind.swap("a", os.urandom(5_000_000), tag)
        with pytest.raises(ObjectChangedError, match="was changed while it was read"):
            stream.read()


def test_an_object_whose_bytes_are_not_those_written_is_damaged(s3_store, bucket, tmp_path):
    key = f"{s3_store.uri.split('/')[-1]}/a"
    wrong = {"sha256": hashlib.sha256(b"what it was").hexdigest()}
    bucket.Object(key).put(Body=b"what it is", Metadata=wrong)
    for use in (lambda: s3_store.read("a"), lambda: s3_store.fetch("a", tmp_path / "a")):
        with pytest.raises(StorageError, match="a is damaged: its SHA-256"):
            use()
    assert not (tmp_path / "a").exists()


def test_what_other_tools_uploaded_is_compared_by_its_content(s3_store, bucket, tmp_path):
    key = f"{s3_store.uri.split('/')[-1]}/a"
    bucket.Object(key).put(Body=b"123")
    (tmp_path / "same").write_bytes(b"123")
    (tmp_path / "other").write_bytes(b"124")
    s3_store.create_from("a", tmp_path / "same")
    with pytest.raises(ObjectExistsError):
        s3_store.create_from("a", tmp_path / "other")


def test_markers_of_folders_are_not_objects(s3_store, bucket):
    prefix = s3_store.uri.split("/")[-1]
    bucket.Object(f"{prefix}/a/").put(Body=b"")
    bucket.Object(f"{prefix}/a/b").put(Body=b"1")
    assert [entry.key for entry in s3_store.list()] == ["a/b"]


def test_a_listing_goes_on_after_a_thousand_keys(s3_store):
    names = [f"{number:04}" for number in range(1_010)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: s3_store.create(f"many/{name}", b""), names))
    assert [entry.key for entry in s3_store.list("many")] == [f"many/{name}" for name in names]


@pytest.mark.parametrize(
    ("endpoint", "style", "url"),
    [
        (None, None, "https://bucket.s3.amazonaws.com/key"),
        ("http://seaweedfs.kubeflow:9000", None, "http://seaweedfs.kubeflow:9000/bucket/key"),
        ("http://store.example", "virtual", "http://bucket.store.example/key"),
        (None, "path", "https://s3.eu-west-1.amazonaws.com/bucket/key"),
    ],
)
def test_the_bucket_is_in_the_path_of_endpoints_that_are_not_amazons(
    s3_server, monkeypatch, tmp_path, endpoint, style, url
):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    (tmp_path / "config").write_text(f"[default]\ns3 =\n  addressing_style = {style}\n" if style else "[default]\n")
    connection = Connection()
    signed = connection.client().generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "key"})
    assert signed.split("?")[0] == url
    connection.close()


def test_a_client_is_made_once_a_process(s3_server):
    connection = Connection()
    assert connection.client() is connection.client()
    first = connection.client()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"other" if connection.client() is not first else b"same!")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 5) == b"other"
    assert connection.client() is first
    os.close(reading)
    os.close(writing)
    connection.close()


def test_a_missing_object_is_no_missing_bucket(s3_store):
    with pytest.raises(MissingObjectError):
        s3_store.read("a")
