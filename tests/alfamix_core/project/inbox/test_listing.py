"""What is in the inbox now."""

import os
import socket
import uuid
from pathlib import Path

import boto3
import pytest

from alfamix_core.project import doctor, planning
from alfamix_core.project.inbox.listing import list_inbox
from alfamix_core.storage import open_store, path_of


def test_files_come_in_the_order_of_their_keys_bytes_with_what_they_are_for(store):
    for key in ("labels/b.jsonl", "labels/B.jsonl", "labels/ä/1.jsonl", "drops/z/manifest.jsonl", "released/r.jsonl"):
        store.create(key, b"")
    store.create("withdrawn/w.jsonl", b"12")
    store.create("drops/z/files/a.png", b"")
    store.create("drops/unfinished/a.png", b"")
    found = list_inbox(store)
    assert [(file.key, file.kind, file.size) for file in found.files] == [
        ("drops/z/manifest.jsonl", "samples", 0),
        ("labels/B.jsonl", "events", 0),
        ("labels/b.jsonl", "events", 0),
        ("labels/ä/1.jsonl", "events", 0),
        ("released/r.jsonl", "released", 0),
        ("withdrawn/w.jsonl", "withdrawn", 2),
    ]
    assert found.odd == ()


def test_a_tag_changes_with_the_bytes_even_if_the_size_does_not(store):
    store.create("labels/a.jsonl", b"1")
    (before,) = list_inbox(store).files
    assert list_inbox(store).files == (before,)
    store.swap("labels/a.jsonl", b"2", store.read("labels/a.jsonl").tag)
    (after,) = list_inbox(store).files
    assert (after.size, after.tag == before.tag) == (before.size, False)


def test_names_that_cannot_be_keys_are_listed_apart(place):
    place.create("labels/good.jsonl", b"")
    folder = path_of(place.uri_of("labels/good.jsonl")).parent
    (folder / "new\nline.jsonl").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jsonl")).write_bytes(b"")
    found = list_inbox(place)
    assert [file.key for file in found.files] == ["labels/good.jsonl"]
    assert found.odd == (
        ("labels/new\\nline.jsonl", "cannot be read: 'labels/new\\nline.jsonl' is not a valid name here"),
        ("labels/\\udcff.jsonl", "cannot be read: 'labels/\\udcff.jsonl' is not a valid name here"),
    )


def test_a_delivery_that_can_be_no_drop_is_set_aside_and_rounds_go_ahead(made, holder, noon):
    """Odd bytes, a line break, links to a folder or to nothing, and a file beside the drops: none is opened."""
    made.drop("a", "b")
    drops = path_of(made.store.uri) / "drops"
    for folder in (b"bad\xff", b"new\nline"):
        path = Path(os.fsdecode(os.fsencode(drops) + b"/" + folder))
        path.mkdir()
        (path / "manifest.jsonl").write_bytes(made.lines("c"))
    outside = drops.parent.parent / "outside"
    outside.mkdir()
    (outside / "manifest.jsonl").write_bytes(made.lines("d"))
    (drops / "linkdir").symlink_to(outside)
    (drops / "nowhere").symlink_to("/nowhere")
    (drops / "manifest.jsonl").write_bytes(made.lines("e"))
    record, _ = planning.begin(made.store, holder("run-1"), noon)
    assert record.counts.samples == 1
    found = made.ledger(noon).set_aside()
    names = ["bad\\udcff", "linkdir", "manifest.jsonl", "new\\nline", "nowhere"]
    assert sorted(key for key, _, _ in found) == [f"drops/{name}" for name in names]
    assert all(key in reason and "\n" not in reason for key, _, reason in found)
    findings = [finding.key for finding in doctor.examine(made.store, noon) if finding.kind == "waiting"]
    assert sorted(findings) == [f"drops/{name}" for name in names]


def test_on_s3_what_can_be_no_drop_is_listed_apart(s3_server):
    prefix = uuid.uuid4().hex
    for key in ("drops/", "drops/a/manifest.jsonl", "drops/manifest.jsonl", "drops/new\nline/manifest.jsonl"):
        boto3.resource("s3").Object(s3_server.bucket, f"{prefix}/{key}").put(Body=b"")
    found = list_inbox(open_store(f"s3://{s3_server.bucket}/{prefix}"))
    assert [file.key for file in found.files] == ["drops/a/manifest.jsonl"]
    assert [name for name, _ in found.odd] == ["drops/manifest.jsonl", "drops/new\\nline"]


def test_an_empty_project_has_an_empty_inbox(store):
    assert list_inbox(store).files == ()


@pytest.mark.parametrize("key", ["labels/link.jsonl", "drops/x/manifest.jsonl"])
def test_a_symbolic_link_in_the_inbox_is_set_aside_and_rounds_go_ahead(made, holder, noon, key):
    made.drop("a", "b")
    link = path_of(made.store.uri) / key
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/etc/passwd")
    record, _ = planning.begin(made.store, holder("run-1"), noon)
    assert record.counts.samples == 1
    ((named, line, reason),) = made.ledger(noon).set_aside()
    assert (named, line) == (key, 0)
    assert "link" in reason


def _pipe(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(path))


@pytest.mark.parametrize("make", [_pipe, _socket])
@pytest.mark.parametrize("key", ["labels/odd.jsonl", "drops/x/manifest.jsonl"])
def test_what_is_no_file_in_the_inbox_is_set_aside_with_a_reason(made, holder, noon, key, make, monkeypatch):
    made.drop("a", "b")
    odd = path_of(made.store.uri) / key
    odd.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(odd.parent)  # the name of a socket is short
    make(odd.name)
    record, _ = planning.begin(made.store, holder("run-1"), noon)
    assert record.counts.samples == 1
    assert made.ledger(noon).set_aside() == [
        (key, 0, f"{odd} is a pipe, a socket or a device, and only files are read")
    ]
