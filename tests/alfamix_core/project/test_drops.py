"""Deliveries: what is registered, under which id, and what is left out; bad input is in tests/pipelines."""

import hashlib
import json

import pytest
from alfamix_core.project.drops import Registered, register

from alfamix_core.errors import InputError
from alfamix_core.project import layout


@pytest.fixture
def delivery(tmp_path):
    """A folder of files whose contents are their names; a test may add more."""
    folder = tmp_path / "new data"

    def add(*names):
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        return folder.as_uri()

    return add


def manifest(made, name):
    return [json.loads(line) for line in made.store.read(layout.manifest(name)).data.splitlines()]


def test_a_folder_is_copied_and_its_samples_are_named_by_their_content(made, delivery):
    done = register(made.store, delivery("b.png", "sub/a.JPG", "notes.txt"))
    assert done == Registered(done.name, 2, 0, "copied")
    assert done.name.startswith("new-20data-")
    ids = {name: hashlib.sha256(name.encode()).hexdigest()[:16] for name in ("b.png", "sub/a.JPG")}
    assert made.store.read(f"drops/{done.name}/files/{ids['b.png']}.png").data == b"b.png"
    assert made.store.read(f"drops/{done.name}/files/{ids['sub/a.JPG']}.jpg").data == b"sub/a.JPG"
    assert {line["id"] for line in manifest(made, done.name)} == set(ids.values())
    assert {s.uri for s in made.ledger().ordered()} == {
        made.store.uri_of(f"drops/{done.name}/files/{ids['b.png']}.png"),
        made.store.uri_of(f"drops/{done.name}/files/{ids['sub/a.JPG']}.jpg"),
    }


def test_a_folder_below_a_data_prefix_is_referred_to_in_place(made, delivery):
    uri = delivery("b.png", "sub/a.webp")
    made.configure(data_prefixes=[uri])
    done = register(made.store, uri)
    assert (done.added, done.how) == (2, "referred to in place")
    assert list(made.store.list(layout.drop(done.name))) == [made.store.entry(layout.manifest(done.name))]
    found = {s.uri: s.sample_id for s in made.ledger().ordered()}
    assert found == {
        f"{uri}/{name}": hashlib.sha256(f"{uri}/{name}".encode()).hexdigest()[:16] for name in ("b.png", "sub/a.webp")
    }


@pytest.mark.parametrize("refer", [False, True])
def test_a_delivery_that_is_registered_twice_has_no_effect_and_a_grown_one_adds_what_is_new(made, delivery, refer):
    uri = delivery("a.png", "b.png")
    if refer:
        made.configure(data_prefixes=[uri])
    first = register(made.store, uri)
    before = made.files()
    assert register(made.store, uri) == Registered("", 0, 2, first.how)
    assert made.files() == before
    grown = register(made.store, delivery("c.png"))
    assert (grown.added, grown.known) == (1, 2)
    assert grown.name != first.name
    assert len(manifest(made, grown.name)) == 1
    assert made.ledger().counts().samples == 3


def test_the_same_file_under_two_names_is_one_sample_when_copied(made, delivery, tmp_path):
    uri = delivery("a.png")
    (tmp_path / "new data" / "again.png").write_bytes(b"a.png")
    assert register(made.store, uri).added == 1


def test_an_interrupted_registration_is_finished_by_the_next(made, delivery):
    uri = delivery("a.png", "b.png")
    done = register(made.store, uri)
    written = made.store.read(layout.manifest(done.name)).data
    made.store.delete(layout.manifest(done.name))
    left = [entry.key for entry in made.store.list(layout.drop(done.name))]
    made.store.delete(left[0])
    assert made.ledger().counts().samples == 0
    assert register(made.store, uri) == done
    assert made.store.read(layout.manifest(done.name)).data == written


def test_folder_names_are_labels_when_they_are_said_to_be(made, delivery):
    done = register(made.store, delivery("cat/a.png", "dog/deep/b.png"), labelled=True)
    assert sorted(line["label"] for line in manifest(made, done.name)) == ["cat", "dog"]
    assert made.ledger().counts().train == 2


def test_a_uri_that_is_spelt_otherwise_names_the_same_folders(made, delivery):
    uri = delivery("cat/a.png")
    done = register(made.store, uri.replace("%20", " ") + "/", labelled=True)
    assert manifest(made, done.name)[0]["label"] == "cat"


def test_shares_of_the_labelled_go_to_test_and_val_by_hash_and_the_rest_trains(made, delivery):
    register(made.store, delivery(*(f"cat/{n}.png" for n in range(300))), labelled=True, test_share=0.2, val_share=0.3)
    counts = made.ledger().counts()
    assert counts.test + counts.val + counts.train == 300
    assert abs(counts.test - 60) < 25
    assert abs(counts.val - 90) < 25


def test_unlabelled_samples_stay_in_the_pool_whatever_the_share(made, delivery):
    register(made.store, delivery("a.png", "b.png"), test_share=1.0)
    assert made.ledger().counts().pool == 2


def test_shares_above_one_are_refused(made, delivery):
    with pytest.raises(InputError, match=r"test 0.6 and val 0.6 must be 1 at most"):
        register(made.store, delivery("a.png"), test_share=0.6, val_share=0.6)


def test_a_manifest_keeps_its_ids_labels_splits_and_groups(made, delivery, tmp_path):
    delivery("one.png", "ü ber.png")
    lines = [
        {"uri": "one.png", "id": "first", "label": "cat", "split": "test", "group": "camera 1"},
        {"uri": "ü ber.png"},
    ]
    path = tmp_path / "new data" / "m.jsonl"
    path.write_text("".join(json.dumps(line) + "\n\n" for line in lines), encoding="utf-8")
    done = register(made.store, path.as_uri(), name="by-hand")
    assert done == Registered("by-hand", 2, 0, "copied")
    found = made.ledger().samples["first"]
    assert (found.label, found.split, found.group) == ("cat", "test", "camera 1")
    assert register(made.store, path.as_uri()) == Registered("", 0, 2, "copied")


def test_an_id_that_another_file_has_is_refused_when_copied(made, tmp_path):
    for folder, content in (("monday", b"a cat"), ("tuesday", b"a dog")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(content)
        (tmp_path / folder / "m.jsonl").write_text('{"uri": "1.png", "id": "1"}\n')
    register(made.store, (tmp_path / "monday/m.jsonl").as_uri())
    before = made.files()
    with pytest.raises(InputError, match=r'm.jsonl: id "1" is already the sample .*1.png is another file'):
        register(made.store, (tmp_path / "tuesday/m.jsonl").as_uri())
    assert made.files() == before


def test_an_id_that_another_uri_has_is_refused_when_referred_to(made, tmp_path):
    made.configure(data_prefixes=[tmp_path.as_uri()])
    for folder in ("monday", "tuesday"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.jsonl").write_text('{"uri": "1.png", "id": "1"}\n')
    register(made.store, (tmp_path / "monday/m.jsonl").as_uri())
    with pytest.raises(InputError, match=r'tuesday/m.jsonl: id "1" is already the sample .*monday/1.png'):
        register(made.store, (tmp_path / "tuesday/m.jsonl").as_uri())


def test_a_name_that_is_taken_or_cannot_be_one_is_refused(made, delivery):
    register(made.store, delivery("a.png"), name="mine")
    before = made.files()
    with pytest.raises(InputError, match='there is a drop "mine" already'):
        register(made.store, delivery("b.png"), name="mine")
    with pytest.raises(InputError, match=r'drop "\.\./x" must be letters'):
        register(made.store, delivery("b.png"), name="../x")
    assert made.files() == before


def test_copying_tells_how_far_it_is(made, delivery):
    told = []
    register(made.store, delivery("a.png", "b.png"), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_a_manifest_line_about_a_missing_file_is_refused_before_anything_is_copied(made, delivery, tmp_path):
    delivery("a.png")
    path = tmp_path / "new data" / "m.jsonl"
    path.write_text('{"uri": "a.png", "id": "1"}\n{"uri": "gone.png", "id": "2"}\n')
    before = made.files()
    with pytest.raises(InputError, match=r"gone.png is not a file"):
        register(made.store, path.as_uri())
    assert made.files() == before
