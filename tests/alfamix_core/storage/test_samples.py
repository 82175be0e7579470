"""Samples are read wherever they lie; a bad one is told from a bad network."""

import os
import pickle
import threading
import uuid
from pathlib import Path

import boto3
import pytest

from alfamix_core.errors import InputError, LinkError, SampleError, StorageError
from alfamix_core.storage import SampleReader, list_uri, normalise_uri, open_file


@pytest.fixture
def reader():
    reader = SampleReader(max_bytes=50)
    yield reader
    reader.close()


def test_a_sample_is_read_with_any_name(store, reader):
    for key in ("a b/100%.png", "ü#1?.png", "a%20b"):
        store.create(key, key.encode())
        assert reader.read(store.uri_of(key)) == key.encode()


@pytest.mark.parametrize(
    ("size", "reason"),
    [(0, "empty file"), (51, r"larger than 50 bytes \(51\)"), (10_000_000, r"larger than 50 bytes \(10000000\)")],
)
def test_a_bad_sample_is_refused_with_its_reason(store, reader, size, reason):
    store.create("a", b"1" * size)
    with pytest.raises(SampleError, match=f"^{reason}$"):
        reader.read(store.uri_of("a"))


def test_a_sample_may_be_as_large_as_the_limit(store, reader):
    store.create("a", b"1" * 50)
    assert len(reader.read(store.uri_of("a"))) == 50


def test_a_missing_sample_is_refused_with_its_reason(store, reader):
    store.create("a", b"1")
    for key in ("b", "a/b", "c/d/e"):
        with pytest.raises(SampleError, match=r"^missing$"):
            reader.read(store.uri_of(key))


def test_what_is_no_file_is_a_bad_sample(reader, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, reason in (
        ("", "not a file"),
        ("pipe", "not a file"),
        ("loop", "symbolic links"),
        ("x" * 300, "too long"),
    ):
        with pytest.raises(SampleError, match=reason):
            reader.read((tmp_path / name).as_uri())


@pytest.mark.s3
def test_a_bucket_that_is_not_there_is_no_bad_sample(s3_server, reader):
    with pytest.raises(InputError, match="the bucket does not exist") as caught:
        reader.read("s3://no-such-bucket/a.png")
    assert not isinstance(caught.value, SampleError)


@pytest.mark.s3
def test_a_network_that_fails_is_no_bad_sample(refusing, reader):
    refusing.status, refusing.code = 503, "SlowDown"
    with pytest.raises(StorageError):
        reader.read("s3://bucket/a.png")


@pytest.mark.s3
def test_an_object_that_may_not_be_read_is_a_bad_sample(refusing, reader):
    refusing.status, refusing.code = 403, "AccessDenied"
    with pytest.raises(SampleError, match=r"^access denied$"):
        reader.read("s3://bucket/a.png")


def test_a_reader_goes_to_other_processes(store, reader):
    store.create("a", b"1")
    uri = store.uri_of("a")
    assert reader.read(uri) == b"1"
    twin = pickle.loads(pickle.dumps(reader))
    assert twin.read(uri) == b"1"
    twin.close()
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0 if all(reader.read(uri) == b"1" for _ in range(20)) else 1)
        children.append(child)
    assert all(reader.read(uri) == b"1" for _ in range(20))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_a_folder_is_listed_with_everything_below_it(store):
    names = ["b.png", "a/2.png", "a/1 #%41.png", "a.png", "a/ü/x"]
    for name in names:
        store.create(f"top/{name}", name.encode())
    store.create("topping/a", b"")
    expected = [(store.uri_of(f"top/{name}"), len(name.encode())) for name in sorted(names, key=str.encode)]
    for folder in ("top", "top/"):
        assert list(list_uri(f"{store.uri}/{folder}")) == expected
    assert all(normalise_uri(uri) == uri for uri, _ in expected)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="missing must be a folder that exists"):
        list(list_uri((tmp_path / "missing").as_uri()))


@pytest.mark.parametrize("name", ["credentials.png", "folder/credentials.png"])
@pytest.mark.parametrize("target", ["secret", "home", "nowhere"])
def test_a_delivery_that_holds_a_link_is_refused_and_the_link_is_named(tmp_path, name, target):
    """Whether it leads to a file, to a folder or nowhere; of the folders that are no links, everything is listed."""
    (tmp_path / "home").mkdir()
    (tmp_path / "secret").write_bytes(b"key")
    delivery = tmp_path / "delivery"
    (delivery / "folder").mkdir(parents=True)
    (delivery / "a.png").write_bytes(b"1")
    (tmp_path / "named").symlink_to(delivery)  # by the user, who may
    assert [Path(uri).name for uri, _ in list_uri((tmp_path / "named").as_uri())] == ["a.png"]
    (delivery / name).symlink_to(tmp_path / target)
    with pytest.raises(LinkError, match=f"^{delivery}/{name} is a symbolic link, and none are followed here"):
        list(list_uri(delivery.as_uri()))


@pytest.fixture
def roots(tmp_path):
    """A project, a data prefix whose own path goes through a link, and a secret outside both."""
    for folder in ("project/files", "disk/images/wrens", "home"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    (tmp_path / "home" / "key").write_bytes(b"secret")
    for name in ("project/files/a", "disk/images/wrens/b"):
        (tmp_path / name).write_bytes(b"1")
    return [(tmp_path / "project").as_uri(), (tmp_path / "data" / "images").as_uri(), "s3://bucket/images"]


def test_a_link_is_followed_within_the_project_and_its_prefixes_and_no_further(tmp_path, roots):
    reader = SampleReader(50, roots)
    (tmp_path / "project/files/inside").symlink_to("a")
    (tmp_path / "project/files/across").symlink_to(tmp_path / "disk/images/wrens/b")
    (tmp_path / "disk/images/folder").symlink_to("wrens")
    for name in ("project/files/a", "project/files/inside", "project/files/across", "data/images/folder/b"):
        assert reader.read((tmp_path / name).as_uri()) == b"1"
    (tmp_path / "project/files/out").symlink_to(tmp_path / "home/key")
    (tmp_path / "disk/images/up").symlink_to("../..")
    for name, link in (
        ("project/files/out", "project/files/out"),
        ("data/images/up/home/key", "data/images/up"),
    ):
        with pytest.raises(
            SampleError, match=f"^{tmp_path}/{link} is a symbolic link that leads outside, to {tmp_path}/"
        ):
            reader.read((tmp_path / name).as_uri())
    with pytest.raises(SampleError, match=f"^{tmp_path}/home/key lies outside; only {tmp_path}/project and "):
        reader.read((tmp_path / "home/key").as_uri())
    with pytest.raises(LinkError, match="leads outside"):
        open_file((tmp_path / "project/files/out").as_uri(), roots)
    assert SampleReader(50).read((tmp_path / "project/files/out").as_uri()) == b"secret"  # named by the user


def test_a_file_that_turns_into_a_link_while_it_is_read_shows_no_secret(tmp_path, roots):
    """A racer swaps the file, and the folder above it, for links to the secret, as fast as it can."""
    reader = SampleReader(50, roots)
    home = tmp_path / "home"
    (home / "a").write_bytes(b"secret")
    files, racing = tmp_path / "project/files", threading.Event()
    plain, link = tmp_path / "project/plain", tmp_path / "project/link"
    link.symlink_to(home)

    def race():
        while not racing.is_set():
            (files / "new").symlink_to(home / "key")
            (files / "new").rename(files / "a")
            files.rename(plain)
            link.rename(files)
            files.rename(link)
            plain.rename(files)
            (files / "new").write_bytes(b"1")
            (files / "new").rename(files / "a")

    racer = threading.Thread(target=race)
    racer.start()
    seen = set()
    try:
        for _ in range(5_000):
            try:
                seen.add(reader.read((files / "a").as_uri()))
            except SampleError as error:
                seen.add(str(error).partition(" is a symbolic link")[2][:20] or str(error))
    finally:
        racing.set()
        racer.join()
    assert b"1" in seen
    assert b"secret" not in seen
    assert len(seen) > 2, "the racer was too slow"


def test_a_file_whose_name_is_no_utf8_is_listed_and_read(tmp_path, reader):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n")).write_bytes(b"1")
    [(uri, size)] = list_uri(tmp_path.as_uri())
    assert (uri, size, reader.read(uri)) == (f"{tmp_path.as_uri()}/%FF%0A", 1, b"1")


@pytest.mark.s3
def test_a_key_that_no_uri_can_name_is_said(s3_server, monkeypatch):
    client = boto3.client("s3", endpoint_url=s3_server.endpoint)
    folder = uuid.uuid4().hex
    client.put_object(Bucket=s3_server.bucket, Key=f"{folder}/a\x01b", Body=b"1")
    with pytest.raises(InputError, match="must not contain control characters"):
        list(list_uri(f"s3://{s3_server.bucket}/{folder}"))
    client.close()
