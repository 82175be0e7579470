"""What every store promises, on a folder and on a real S3 server."""

import hashlib
import pickle
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from alfamix_core.errors import InputError, MissingObjectError, ObjectChangedError, ObjectExistsError
from alfamix_core.storage import open_store
from alfamix_core.storage.store import is_valid_key

ROOT = Path(__file__).parents[3]


def in_threads(count, work):
    """Run work(0), work(1), ... at the same time and return what they returned.

    SeaweedFS lets writers of one key wait for each other a second at a time, so the numbers here are small.
    """
    start = threading.Barrier(count)

    def begin(number):
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def test_what_was_created_is_read(store):
    tag = store.create("rounds/000001/round.json", b"{}\n")
    stored = store.read("rounds/000001/round.json")
    assert (stored.data, stored.tag) == (b"{}\n", tag)


def test_a_mark_is_an_empty_object(store):
    store.mark("run/attempts/train-/1")
    assert store.read("run/attempts/train-/1").data == b""
    entry = store.entry("run/attempts/train-/1")
    assert (entry.key, entry.size) == ("run/attempts/train-/1", 0)


def test_an_object_may_be_empty(store):
    store.create("a", b"")
    assert store.read("a").data == b""
    with store.open("a") as stream:
        assert stream.read() == b""
    assert store.entry("a").size == 0


def test_when_an_object_was_written(store):
    before = datetime.now(UTC) - timedelta(seconds=2)
    store.create("a", b"")
    assert before < store.modified("a") < datetime.now(UTC) + timedelta(seconds=2)
    assert store.modified("b") is None


def test_what_is_not_there_is_said_with_its_uri(store, tmp_path):
    store.create("b/c", b"1")
    for key in ("a", "a/b", "b", "b/c/d"):
        for use in (store.read, store.open, lambda key: store.fetch(key, tmp_path / "x")):
            with pytest.raises(MissingObjectError, match=f"^{store.uri}/{key} does not exist$"):
                use(key)
        assert store.entry(key) is None
        store.delete(key)
    assert not (tmp_path / "x").exists()


def test_nothing_is_created_twice(store):
    store.create("a", b"1")
    for data in (b"1", b"2"):
        with pytest.raises(ObjectExistsError, match=f"^{store.uri}/a exists already$"):
            store.create("a", data)
    assert store.read("a").data == b"1"


def test_a_write_is_repeated_with_the_same_bytes_only(store):
    tag = store.create_same("a", b"1")
    assert store.create_same("a", b"1") == tag
    with pytest.raises(ObjectExistsError, match="holds something else"):
        store.create_same("a", b"2")
    assert store.read("a").data == b"1"


def test_a_swap_needs_the_tag_that_was_read(store):
    first = store.create("a", b"1")
    second = store.swap("a", b"2", first)
    assert store.read("a").tag == second
    with pytest.raises(ObjectChangedError, match=f"^{store.uri}/a was changed meanwhile$"):
        store.swap("a", b"3", first)
    assert store.read("a").data == b"2"


def test_a_swap_needs_an_object(store):
    tag = store.create("a", b"1")
    store.delete("a")
    with pytest.raises(ObjectChangedError):
        store.swap("a", b"2", tag)
    assert store.entry("a") is None


def test_equal_bytes_have_equal_tags(store):
    assert store.create("a", b"1") == store.create("b", b"1") != store.create("c", b"2")


@pytest.mark.parametrize("size", [0, 1, 1_000_000, 20_000_000])
def test_a_file_goes_up_once_and_comes_down_whole(store, tmp_path, size):
    data = bytes(range(256)) * (size // 256 + 1)
    source = tmp_path / "source"
    source.write_bytes(data[:size])
    digest = hashlib.sha256(data[:size]).hexdigest()
    assert store.create_from("models/x.safetensors", source) == digest
    assert store.create_from("models/x.safetensors", source) == digest
    assert store.entry("models/x.safetensors").size == size
    store.fetch("models/x.safetensors", tmp_path / "new" / "folder" / "copy")
    assert (tmp_path / "new/folder/copy").read_bytes() == data[:size]
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["copy"]


@pytest.mark.parametrize("size", [10, 20_000_000])
def test_a_file_that_is_open_already_goes_up_whatever_its_path_becomes(store, tmp_path, size):
    """So a caller can check what it has opened, and nobody can swap the file in between."""
    source = tmp_path / "source"
    source.write_bytes(b"1" * size)
    with source.open("rb") as stream:
        source.unlink()
        source.symlink_to("/etc/passwd")
        assert store.create_from("a", stream) == hashlib.sha256(b"1" * size).hexdigest()
    with store.open("a") as stream:
        assert stream.read() == b"1" * size


@pytest.mark.parametrize("size", [10, 20_000_000])
def test_a_file_never_replaces_another(store, tmp_path, size):
    (tmp_path / "one").write_bytes(b"1" * size)
    (tmp_path / "two").write_bytes(b"2" * size)
    store.create_from("a", tmp_path / "one")
    with pytest.raises(ObjectExistsError, match="holds something else"):
        store.create_from("a", tmp_path / "two")
    with store.open("a") as stream:
        assert stream.read() == b"1" * size


def test_a_file_that_equals_what_create_wrote_is_a_repetition(store, tmp_path):
    (tmp_path / "file").write_bytes(b"123")
    store.create("a", b"123")
    store.create_from("a", tmp_path / "file")
    store.create_from("b", tmp_path / "file")
    store.create_same("b", b"123")
    assert [store.read(key).data for key in "ab"] == [b"123", b"123"]


def test_a_download_replaces_the_file_that_is_there(store, tmp_path):
    (tmp_path / "copy").write_bytes(b"old")
    store.create("a", b"new")
    store.fetch("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"new"


def test_lines_are_read_as_a_stream(store):
    lines = [b'{"uri": "%d.png"}\n' % number for number in range(100_000)]
    store.create("drops/a/manifest.jsonl", b"".join(lines))
    with store.open("drops/a/manifest.jsonl") as stream:
        assert list(stream) == lines


def test_a_listing_has_all_below_a_folder_in_the_order_of_the_bytes(store):
    names = ["a/c", "a.b", "a-b", "a0", "a/b/z", "a/b.x", "a/b-x/y", "b", "a b/x", "é/x", "Z/x", "a/😀", "a/\ue000"]
    for name in names:
        store.create(f"top/{name}", name.encode())
    store.create("top.json", b"")
    store.create("topping/a", b"")
    expected = [f"top/{name}" for name in sorted(names, key=str.encode)]
    assert [entry.key for entry in store.list("top")] == expected
    assert [(entry.key, entry.size) for entry in store.list("top/")] == [
        (key, len(key.encode()) - 4) for key in expected
    ]
    assert [entry.key for entry in store.list()] == sorted([*expected, "top.json", "topping/a"], key=str.encode)
    assert list(store.list("nothing")) == []
    assert store.folders("top") == ["Z", "a", "a b", "é"]
    assert store.folders() == ["top", "topping"]
    assert store.folders("nothing") == []


@pytest.mark.parametrize("size", [0, 1, 20_000_000])
def test_a_listing_shows_which_object_changed(store, tmp_path, size):
    """By the tag alone, although the size stays; ``entry`` and ``list`` agree about it."""
    (tmp_path / "source").write_bytes(b"1" * size)
    store.create_from("large", tmp_path / "source")
    first = store.create("a", b"1")
    store.create("b", b"1")
    before = list(store.list())
    assert list(store.list()) == before
    assert [store.entry(entry.key) for entry in before] == before
    store.swap("a", b"2", first)
    store.delete("b")
    store.create("b", b"3")
    after = {entry.key: entry for entry in store.list()}
    assert {entry.key for entry in before if after[entry.key].tag != entry.tag} == {"a", "b"}
    assert {entry.key for entry in before if after[entry.key].size != entry.size} == set()


@pytest.mark.parametrize(
    "key",
    [
        *("", "/a", "a/", "a//b", ".", "a/./b", "..", "../a", "a/../b", "a\\b", "a\nb", "a\0", "\ud800", ".alfamix/x"),
        *("a" * 256, "a/" * 500 + "a"),
    ],
    ids=ascii,
)
def test_a_key_that_could_leave_the_store_is_refused(store, key, tmp_path):
    for use in (
        *(store.read, store.open, store.entry, store.modified, store.delete, store.mark, store.uri_of, store.table),
        *(lambda key: store.create(key, b""), lambda key: store.swap(key, b"", "tag")),
        *(lambda key: store.create_same(key, b""), lambda key: store.create_from(key, Path(__file__))),
        *(lambda key: store.fetch(key, tmp_path / "x"),),
    ):
        with pytest.raises(InputError, match="must be a relative key"):
            use(key)
    if key not in ("", "a/"):  # the whole store, and a folder
        for use in (lambda prefix: list(store.list(prefix)), store.folders):
            with pytest.raises(InputError, match="must be a relative key"):
                use(key)
    assert list(store.list()) == []


PARTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\\ufffe\uffff"), min_size=1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(PARTS, min_size=1, max_size=3))
@example(["a%20b+c", "%2e%2e", "?x=1#y"])
@example([" a ", "...", "-"])
@example(["é", "e\u0301"])
def test_every_key_makes_the_round_trip(store, parts):
    folder = uuid.uuid4().hex
    key = "/".join([folder, *parts])
    if not is_valid_key(key):
        return
    store.create(key, b"1")
    assert store.read(key).data == b"1"
    assert [entry.key for entry in store.list(folder)] == [key]
    with pytest.raises(ObjectExistsError):
        store.create(key, b"2")


def test_of_twenty_creators_one_wins(store):
    def create(number):
        try:
            store.create("lock.json", b"%d" % number)
        except ObjectExistsError:
            return None
        return number

    winners = [number for number in in_threads(20, create) if number is not None]
    assert len(winners) == 1
    assert store.read("lock.json").data == b"%d" % winners[0]


def test_of_creators_of_the_same_bytes_one_wins(store):
    def create(_):
        try:
            return store.create("a", b"the same")
        except ObjectExistsError:
            return None

    assert sum(tag is not None for tag in in_threads(6, create)) == 1


def test_all_repeaters_succeed(store, tmp_path):
    (tmp_path / "file").write_bytes(b"1" * 20_000_000)
    in_threads(6, lambda _: store.create_same("a", b"the same"))
    in_threads(2, lambda _: store.create_from("b", tmp_path / "file"))
    assert (store.entry("b").key, store.entry("b").size) == ("b", 20_000_000)


ADD = """
import sys
from alfamix_core.errors import ObjectChangedError
from alfamix_core.storage import open_store

def add(store):
    while True:
        stored = store.read("counter")
        try:
            return store.swap("counter", b"%d" % (int(stored.data) + 1), stored.tag)
        except ObjectChangedError:
            pass

if __name__ == "__main__":
    store = open_store(sys.argv[1])
    for _ in range(15):
        add(store)
"""


def test_no_swap_is_lost_among_threads(store):
    names = {"__name__": "add"}
    exec(ADD, names)
    store.create("counter", b"0")
    in_threads(10, lambda _: [names["add"](store) for _ in range(5)])
    assert store.read("counter").data == b"50"


def test_no_swap_is_lost_among_processes(store):
    store.create("counter", b"0")
    running = [subprocess.Popen([sys.executable, "-c", ADD, store.uri], cwd=ROOT) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert store.read("counter").data == b"45"


def test_a_pickled_store_is_the_same_store(store):
    store.create("a", b"1")
    twin = pickle.loads(pickle.dumps(store))
    assert (twin.uri, twin.read("a")) == (store.uri, store.read("a"))
    twin.close()


def test_a_closed_store_opens_again(store):
    store.create("a", b"1")
    store.close()
    assert store.read("a").data == b"1"


def test_the_conditions_of_a_real_store_hold(store):
    store.check_conditional_writes()
    assert list(store.list()) == []


def test_uris_are_those_of_the_store(store):
    assert open_store(store.uri + "/").uri == store.uri
    assert store.uri_of("a/b") == f"{store.uri}/a/b"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("project", "must begin with file:/// or s3://"),
        ("/abs", "must begin with file:/// or s3://"),
        ("file://relative/path", "must be absolute"),
        ("gs://bucket/x", "must begin with file:/// or s3://"),
        ("s3://B_/x", "must name a bucket"),
        ("s3:///x", "must name a bucket"),
        ("s3://bucket/a/../b", 'must not contain a part ".."'),
        ("file:///a/%2e%2e/b", 'must not contain a part ".."'),
        ("file:///", "cannot be a store"),
    ],
)
def test_a_uri_that_is_no_store_is_refused(uri, words):
    with pytest.raises(InputError, match=words):
        open_store(uri)
