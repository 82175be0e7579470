"""Manifests too large to be read line by line again: registered through segments, with the same words."""

import json

import pytest
from alfamix_core.project.drops import register
from alfamix_core.project.samples import Sample
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from alfamix_core.project import drops, layout, raw, segments
from alfamix_core.project.ledger import derive, freeze
from alfamix_core.records.manifest import ManifestLine


@pytest.fixture
def large(made_anywhere, monkeypatch):
    """A project in which ten lines are many."""
    monkeypatch.setattr(segments, "WORTH_LINES", 10)
    monkeypatch.setattr(raw, "BLOCK", 4)
    monkeypatch.setattr(drops, "_TOLD", 5)
    made_anywhere.configure(data_prefixes=["s3://pictures"])
    return made_anywhere


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest; return its uri."""

    def manifest(*lines, name="m.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return (tmp_path / name).as_uri()

    return manifest


def line(number, **fields):
    return {"uri": f"s3://pictures/{number:03d}.png", **fields}


@given(
    st.builds(
        ManifestLine,
        uri=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
        id=st.just("a.b"),
        label=st.none() | st.text(st.characters(codec="utf-8"), max_size=9),
        split=st.sampled_from([None, "val", "test"]),
        group=st.none() | st.text(st.characters(codec="utf-8"), max_size=9),
    )
)
def test_a_line_written_quickly_is_what_the_record_writes(record):
    sample = Sample(record.id, record.uri, record.label, record.split or "train", record.group)
    assert drops._manifest_line(sample).encode() == record.json_line()


def test_a_large_manifest_is_a_segment_from_the_start_and_says_what_its_lines_say(large, manifest, noon):
    told = []
    lines = [line(n, label="cat" if n % 3 else None, group=f"g{n % 2}", id=f"{n:02d}") for n in range(12)]
    uri = manifest(*lines)
    done = register(large.store, uri, test_share=0.5, progress=lambda *numbers: told.append(numbers))
    assert (done.added, done.known, done.how) == (12, 0, "referred to in place")
    assert [lines for lines, _ in told] == [5, 10]
    assert all(abs(total - 12) <= 2 for _, total in told)
    (item,) = freeze(large.store)
    assert item.key.startswith("ledger/")
    fast = large.ledger()
    for entry in list(large.store.list(layout.LEDGER)):
        large.store.delete(entry.key)
    slow = derive(large.store, large.settings, freeze(large.store), noon)
    assert dict(fast.samples) == dict(slow.samples)
    assert 0 < fast.counts().test < 8
    assert register(large.store, uri).known == 12


def test_of_a_grown_manifest_only_what_is_new_is_added(large, manifest):
    register(large.store, manifest(*map(line, range(12))))
    done = register(large.store, manifest(*map(line, range(9, 15)), line(14)))
    assert (done.added, done.known) == (3, 4)
    assert large.ledger().counts().samples == 15
    assert [item.key.split("/")[0] for item in freeze(large.store)] == ["ledger", "drops"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(1, id="a"), line(2, id="a")], r'^m.jsonl line 2: id "a" is already the sample s3://pictures/001.png'),
        ([line(1, label="cat"), line(1)], "are the same sample, once with label 'cat' and once with None"),
        (
            [line(1), line(2, label="cow")],
            r'^m.jsonl line 2: label "cow" is not a class; the classes are cat, dog, owl',
        ),
        ([line(1), {"uri": "s3://others/1.png"}], r'^m.jsonl line 2: uri "s3://others/1.png" must be relative'),
        ([line(99, id="003")], r'm.jsonl: id "003" is already the sample s3://pictures/003.png'),
        ([line(1), {"uri": "a.png"}], r"names files below a data prefix and others; register them apart"),
        ([], r"m.jsonl: empty file"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(large, manifest, lines, message):
    register(large.store, manifest(*(line(n, id=f"{n:03d}") for n in range(12)), name="first.jsonl"))
    before = large.files()
    with pytest.raises(InputError, match=message):
        register(large.store, manifest(*lines))
    assert large.files() == before


def test_a_drop_of_that_name_is_left_alone(large, manifest):
    register(large.store, manifest(*map(line, range(12))), name="mine")
    before = large.files()
    with pytest.raises(InputError, match='there is a drop "mine" already; give this one another --name'):
        register(large.store, manifest(*map(line, range(20, 40))), name="mine")
    assert large.files() == before


def test_a_withdrawn_sample_that_is_delivered_again_stays_withdrawn(large, manifest, noon):
    register(large.store, manifest(*(line(n, id=f"{n:03d}") for n in range(12))))
    drops.withdraw(large.store, ["003"], "", noon, "gone")
    done = register(large.store, manifest(line(3, id="003"), line(50)))
    assert (done.added, done.known) == (1, 1)
    assert set(large.ledger().withdrawn) == {"003"}
