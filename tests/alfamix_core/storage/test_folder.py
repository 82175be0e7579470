"""What only the store in a folder must prove: kills, leftovers, links, and the errors of a file system."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alfamix_core.errors import InputError, LinkError, ObjectExistsError, StorageError
from alfamix_core.storage import FolderStore, open_store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "a project #1 %41"


@pytest.fixture
def folder_store(root):
    return open_store(root.as_uri())


def test_the_uri_names_the_folder_whatever_it_is_called(folder_store, root):
    folder_store.create("a b/ü", b"1")
    assert (root / "a b" / "ü").read_bytes() == b"1"
    assert folder_store.uri_of("a b/ü") == (root / "a b" / "ü").as_uri()


def test_a_tag_is_the_sha256_of_the_content(folder_store):
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert folder_store.create("a", b"") == empty


def test_a_file_that_a_person_changed_is_not_swapped(folder_store, root):
    tag = folder_store.create("project.json", b"{}")
    (root / "project.json").write_bytes(b'{"seed": 1}')
    with pytest.raises(StorageError, match="was changed meanwhile"):
        folder_store.swap("project.json", b"[]", tag)


def test_leftovers_of_a_killed_process_are_not_seen_and_go_after_a_day(folder_store, root):
    folder_store.create("a", b"1")
    old, new = root / ".alfamix" / "old.tmp", root / ".alfamix" / "new.tmp"
    for leftover in (old, new):
        leftover.write_bytes(b"half of someth")
    os.utime(old, (time.time() - 100_000,) * 2)
    assert [entry.key for entry in folder_store.list()] == ["a"]
    assert folder_store.folders() == []
    FolderStore(root).create("b", b"1")
    assert (old.exists(), new.exists()) == (False, True)


def test_nothing_is_left_of_writes_that_failed(folder_store, root, tmp_path):
    tag = folder_store.create("a", b"1")
    for attempt in (
        lambda: folder_store.create("a", b"2"),
        lambda: folder_store.swap("a", b"2", "another tag"),
        lambda: folder_store.create("a/b", b"2"),
        lambda: folder_store.create_from("b", tmp_path / "missing"),
        lambda: folder_store.create_from("a", Path(__file__)),
    ):
        with pytest.raises(StorageError):
            attempt()
    folder_store.swap("a", b"2", tag)
    assert {path.name for path in root.rglob("*") if path.is_file()} == {"swap.lock", "a"}


WRITE = """
import itertools, sys
from alfamix_core.storage import open_store

store = open_store(sys.argv[1])
tag = store.create("swapped", b"0" * 100_000) if store.entry("swapped") is None else store.read("swapped").tag
print("ready", flush=True)
for number in itertools.count():
    tag = store.swap("swapped", b"%d" % (number % 10) * 100_000, tag)
    store.create(f"created/{sys.argv[2]}-{number}", b"x" * 100_000)
"""


def test_a_writer_killed_anywhere_leaves_whole_objects_and_no_lock(folder_store):
    for attempt in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE, folder_store.uri, str(attempt)], cwd=ROOT, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.01 + attempt * 0.013)
            writer.send_signal(signal.SIGKILL)
        stored = folder_store.read("swapped")
        assert len(stored.data) == 100_000
        assert len(set(stored.data)) == 1
        assert {entry.size for entry in folder_store.list("created")} <= {100_000}
        folder_store.swap("swapped", b"0" * 100_000, stored.tag)


def test_a_folder_is_gone_with_its_last_object(folder_store):
    folder_store.create("a/b/c", b"")
    folder_store.create("a/d", b"")
    folder_store.delete("a/b/c")
    assert folder_store.folders("a") == []
    folder_store.delete("a/d")
    folder_store.create("a", b"now an object")


def test_an_object_and_a_folder_exclude_each_other(folder_store):
    folder_store.create("a", b"")
    folder_store.create("b/c", b"")
    with pytest.raises(StorageError, match="cannot be made below an object"):
        folder_store.create("a/b", b"")
    with pytest.raises(ObjectExistsError):
        folder_store.create("b", b"")


def test_files_that_are_no_keys_are_not_listed(folder_store, root):
    folder_store.create("a", b"")
    (root / "with\nnewline").touch()
    (root / "with\\backslash").touch()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff")).touch()
    assert [entry.key for entry in folder_store.list()] == ["a"]


def test_a_pipe_is_listed_and_neither_read_nor_waited_for(folder_store, root):
    folder_store.create("labels/a", b"1")
    os.mkfifo(root / "labels/pipe")
    assert [entry.key for entry in folder_store.list()] == ["labels/a", "labels/pipe"]
    for read in (folder_store.read, folder_store.open, lambda key: folder_store.fetch(key, root / "out")):
        with pytest.raises(InputError, match="pipe is a pipe, a socket or a device, and only files are read"):
            read("labels/pipe")


def test_a_link_is_listed_and_never_followed(folder_store, root, tmp_path):
    """Whoever may deliver into the project's folder gets nothing read or written that lies elsewhere."""
    home = tmp_path / "home"
    (home / "below").mkdir(parents=True)
    (home / "key").write_bytes(b"secret")
    (home / "below" / "key").write_bytes(b"secret")
    folder_store.create("labels/a", b"1")
    (root / "labels/file").symlink_to(home / "key")
    (root / "labels/folder").symlink_to(home)
    (root / "labels/dangling").symlink_to(home / "nowhere")
    (root / "labels/itself").symlink_to(root)
    links = ["labels/dangling", "labels/file", "labels/folder", "labels/itself"]
    assert [entry.key for entry in folder_store.list()] == ["labels/a", *links]
    assert folder_store.folders("labels") == []
    for link in links:
        assert folder_store.entry(link).key == link
        for use in (
            lambda key: folder_store.read(key),
            lambda key: folder_store.open(key),
            lambda key: folder_store.fetch(key, tmp_path / "x"),
            lambda key: folder_store.swap(key, b"2", hashlib.sha256(b"secret").hexdigest()),
            lambda key: folder_store.read(f"{key}/key"),
            lambda key: folder_store.entry(f"{key}/key"),
            lambda key: folder_store.create(f"{key}/new", b"2"),
            lambda key: folder_store.mark(f"{key}/new"),
            lambda key: folder_store.delete(f"{key}/key"),
            lambda key: list(folder_store.list(key)),
            lambda key: folder_store.folders(f"{key}/below"),
        ):
            with pytest.raises(
                LinkError, match=f"^{re.escape(str(root))}/{link} is a symbolic link, and none are followed here"
            ):
                use(link)
        with pytest.raises(ObjectExistsError):
            folder_store.create(link, b"2")
        folder_store.mark(link)
    assert sorted(path.name for path in home.rglob("*")) == ["below", "key", "key"]
    assert (home / "key").read_bytes() == b"secret"
    for link in links:
        folder_store.delete(link)
    assert [entry.key for entry in folder_store.list()] == ["labels/a"]
    assert (home / "key").exists()


def test_a_disk_that_fails_gives_one_line(folder_store, root):
    root.parent.mkdir(exist_ok=True)
    root.write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match=r"^file:///.*/a: (File exists|Not a directory)") as caught:
        folder_store.create("a", b"")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_for_a_person(folder_store, root):
    root.mkdir()
    root.chmod(0o500)
    with pytest.raises(InputError, match="permission denied"):
        folder_store.create("a", b"")


def test_a_folder_project_does_without_boto3(tmp_path):
    code = (
        "import sys; from alfamix_core.storage import open_store, SampleReader, list_uri\n"
        f"store = open_store({tmp_path.as_uri()!r}); store.create('a', b'1')\n"
        "assert SampleReader(10).read(store.uri_of('a')) == b'1' and len(list(list_uri(store.uri))) == 1\n"
        "assert not {'boto3', 'botocore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
