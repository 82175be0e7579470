"""Deliveries: what is registered, under which id, and what is left out."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from alfamix_core.project import doctor, layout
from alfamix_core.project.inbox import deliveries
from alfamix_core.project.inbox.corrections import withdraw
from alfamix_core.project.inbox.deliveries import Registered, register
from alfamix_core.project.inbox.reading import ROWS
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.records.tables import batches


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


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def uris(made):
    """Return the uri of each sample, by its id."""
    return {row["sample_id"]: row["uri"] for row in made.ledger().query("select * from samples").to_pylist()}


def manifest(made, name):
    return [json.loads(line) for line in made.store.read(layout.manifest(name)).data.splitlines()]


def test_a_folder_is_copied_and_its_samples_are_named_by_their_content(made, delivery):
    done = register(made.store, delivery("b.png", "sub/a.JPG", "notes.txt"))
    assert done == Registered(done.name, 2, 0, "copied")
    assert done.name.startswith("new-20data-")
    for name in ("b.png", "sub/a.JPG"):
        assert made.store.read(f"files/{sha256(name)}").data == name.encode()
    assert uris(made) == {
        sha256(name)[:16]: made.store.uri_of(f"files/{sha256(name)}") for name in ("b.png", "sub/a.JPG")
    }
    assert [entry.key for entry in made.store.list(layout.DROPS)] == [layout.manifest(done.name)]


def test_a_folder_below_a_data_prefix_is_referred_to_in_place(made, delivery):
    uri = delivery("b.png", "sub/a.webp")
    made.configure(data_prefixes=[uri])
    done = register(made.store, uri)
    assert (done.added, done.how) == (2, "referred to in place")
    assert list(made.store.list(layout.FILES)) == []
    assert uris(made) == {sha256(f"{uri}/{name}")[:16]: f"{uri}/{name}" for name in ("b.png", "sub/a.webp")}


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
    made.store.delete(next(made.store.list(layout.FILES)).key)
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
    (row,) = made.ledger().query("select * from samples where sample_id = 'first'").to_pylist()
    assert (row["label"], row["split"], row["group"]) == ("cat", "test", "camera 1")
    assert register(made.store, path.as_uri()) == Registered("", 0, 2, "copied")


def test_an_id_that_another_file_has_is_refused_when_copied(made, tmp_path):
    for folder, content in (("monday", b"a cat"), ("tuesday", b"a dog")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(content)
        (tmp_path / folder / "m.jsonl").write_text('{"uri": "1.png", "id": "1"}\n')
    register(made.store, (tmp_path / "monday/m.jsonl").as_uri())
    before = made.files()
    with pytest.raises(InputError, match=r'm.jsonl line 1: id "1" is already the sample .*; it cannot be'):
        register(made.store, (tmp_path / "tuesday/m.jsonl").as_uri())
    assert made.files() == before


def test_an_id_that_another_uri_has_is_refused_when_referred_to(made, tmp_path):
    made.configure(data_prefixes=[tmp_path.as_uri()])
    for folder in ("monday", "tuesday"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.jsonl").write_text('{"uri": "1.png", "id": "1"}\n')
    register(made.store, (tmp_path / "monday/m.jsonl").as_uri())
    with pytest.raises(InputError, match=r'm.jsonl line 1: id "1" is already the sample .*monday/1.png'):
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


# deliveries that share pictures, and manifests


@pytest.mark.parametrize("order", ["one after the other", "both before either is known", "at the same moment"])
def test_two_deliveries_that_share_a_picture_agree(made_anywhere, delivery, tmp_path, monkeypatch, order, noon):
    """The second one's manifest names the same copy, so that no command of the project fails afterwards."""
    made = made_anywhere
    first = delivery("a.png", "common.png")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "same.jpg").write_bytes(b"common.png")
    (tmp_path / "second" / "b.png").write_bytes(b"b.png")
    second = (tmp_path / "second").as_uri()
    if order == "at the same moment":
        with ThreadPoolExecutor(2) as pool:
            done = [each.result() for each in [pool.submit(register, made.store, uri) for uri in (first, second)]]
    elif order == "both before either is known":
        real = deliveries._copy

        def late(*arguments):
            monkeypatch.setattr(deliveries, "_copy", real)
            late.done = register(made.store, second)
            return real(*arguments)

        monkeypatch.setattr(deliveries, "_copy", late)
        done = [register(made.store, first), late.done]
    else:
        done = [register(made.store, first), register(made.store, second)]
    assert sum(each.added + each.known for each in done) == 4
    assert uris(made) == {
        sha256(name)[:16]: made.store.uri_of(f"files/{sha256(name)}") for name in ("a.png", "b.png", "common.png")
    }
    assert made.ledger().set_aside() == []
    made.load()
    assert len(made.pool()) == 3
    assert doctor.examine(made.store, noon, deep=True) == []


_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)


@given(
    st.lists(
        st.builds(
            ManifestLine,
            uri=_TEXT,
            id=st.just("a.b"),
            label=st.none() | _TEXT,
            split=st.sampled_from([None, "val", "test"]),
            group=st.none() | st.just("") | _TEXT,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_lines_written_quickly_are_what_the_record_writes(records):
    rows = [(line.id, line.uri, line.label, line.split or "train", line.group, "", 1) for line in records]
    (batch,) = batches(ROWS["samples"], rows)
    assert deliveries._lines(batch, (0.0, 0.0)) == b"".join(line.json_line() for line in records)


@pytest.fixture
def pictures(made_anywhere, tmp_path):
    """A project that refers to pictures elsewhere; register a manifest of them."""
    made_anywhere.configure(data_prefixes=["s3://pictures"])

    def pictures(*lines, **fields):
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return register(made_anywhere.store, (tmp_path / "m.jsonl").as_uri(), **fields)

    pictures.made = made_anywhere
    return pictures


def line(number, **fields):
    return {"uri": f"s3://pictures/{number:03d}.png", **fields}


def test_a_manifest_is_registered_with_all_that_its_lines_say(pictures):
    lines = [line(n, label="cat" if n % 3 else None, group=f"g{n % 2}", id=f"{n:02d}") for n in range(12)]
    done = pictures(*lines, test_share=0.5)
    assert (done.added, done.known, done.how) == (12, 0, "referred to in place")
    rows = pictures.made.ledger().query('select sample_id, uri, label, "group" from samples order by sample_id')
    expected = [{"sample_id": each["id"], **{name: each[name] for name in ("uri", "label", "group")}} for each in lines]
    assert rows.to_pylist() == expected
    assert 0 < pictures.made.ledger().counts().test < 8
    pictures.made.load()
    assert pictures(*lines).known == 12


def test_of_a_grown_manifest_only_what_is_new_is_added(pictures):
    pictures(*map(line, range(12)))
    done = pictures(*map(line, range(9, 15)), line(14))
    assert (done.added, done.known) == (3, 4)
    assert pictures.made.ledger().counts().samples == 15


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(1, id="a"), line(2, id="a")], r'^m.jsonl line 2: id "a" is already the sample s3://pictures/001.png'),
        (
            [line(1, label="cat"), line(1)],
            r"m.jsonl line 2: s3://.*001.png has the label None, and 'cat' on an earlier",
        ),
        (
            [line(1), line(2, label="cow")],
            r'^m.jsonl line 2: label "cow" is not a class; the classes are cat, dog, owl',
        ),
        ([line(1), {"uri": "s3://others/1.png"}], r'^m.jsonl line 2: uri "s3://others/1.png" must be relative'),
        ([line(99, id="003")], r'^m.jsonl line 1: id "003" is already the sample s3://pictures/003.png'),
        ([line(1), {"uri": "a.png"}], r"names files below a data prefix and others; register them apart"),
        ([], r"m.jsonl: empty file"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(pictures, lines, message):
    pictures(*(line(n, id=f"{n:03d}") for n in range(12)))
    before = pictures.made.files()
    with pytest.raises(InputError, match=message):
        pictures(*lines)
    assert pictures.made.files() == before


def test_a_withdrawn_sample_is_known_and_not_registered_again(pictures, noon):
    pictures(*(line(n, id=f"{n:03d}") for n in range(12)))
    withdraw(pictures.made.store, ["003"], "", noon, "gone")
    done = pictures(line(3, id="003"), line(50))
    assert (done.added, done.known) == (1, 1)
    assert pictures.made.ledger().withdrawn() == {"003"}
