"""Many small deliveries: their segments are merged, and an id is looked up without reading what is known."""

import threading

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from alfamix_core.project.drops import register
from alfamix_core.records.segment import CARD_FILE

from alfamix_core.errors import InputError, LockedError
from alfamix_core.project import cleaning, layout, lock, raw, rounds, segments
from alfamix_core.project.ledger import current, derive, freeze
from alfamix_core.records.manifest import ManifestLine
from alfamix_core.storage import Store, open_store


class KilledError(Exception):
    """Stands for the end of the process."""


def killing(act, left):
    """Let a method act so many times, and then no more."""

    def acting(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        return act(*arguments)

    return acting


def names(store: Store) -> set[str]:
    return set(store.folders(layout.LEDGER))


def cut(made):
    """Make a segment of what none covers."""
    inputs = freeze(made.store)
    return segments.compact(made.store, inputs, made.ledger().fresh)


@pytest.fixture
def many(made, monkeypatch):
    """A project of nine segments: two drops and a label batch in each."""
    monkeypatch.setattr(segments, "WORTH_LINES", 1)
    made.configure(data_prefixes=["s3://pictures"])
    for number in range(9):
        for name, keys, label in (("a", "s", "cat"), ("b", "ts", None)):
            lines = [
                ManifestLine(uri=f"s3://pictures/{key}{number}", id=f"{key}{number}", label=label).json_line()
                for key in keys
            ]
            made.store.create(layout.manifest(f"{name}{number}"), b"".join(lines))
        made.label(f"{number}", **{f"t{number}": "dog"})
        cut(made)
    return made


def test_many_small_segments_become_one_and_the_ledger_stays_as_it_is(many, noon):
    before = many.ledger()
    inputs = segments.merge(many.store, freeze(many.store))
    assert len(inputs) == 1
    assert freeze(many.store) == inputs, "the merged one is used, and those it stands for are not"
    after = many.ledger()
    assert (after.counts(), dict(after.samples), after.verdicts) == (
        before.counts(),
        dict(before.samples),
        before.verdicts,
    )
    assert after.repeated == before.repeated == 9
    assert segments.merge(many.store, inputs) == inputs


def test_few_segments_and_large_ones_are_left_alone(many, monkeypatch):
    inputs = freeze(many.store)
    monkeypatch.setattr(segments, "SMALL_LINES", 4)
    assert segments.merge(many.store, inputs) == inputs
    monkeypatch.setattr(segments, "SMALL_LINES", 5)
    monkeypatch.setattr(segments, "MANY_SMALL", 10)
    assert segments.merge(many.store, inputs) == inputs


def test_a_round_merges_freezes_the_merged_one_and_deletes_the_others(many, holder, noon):
    before = names(many.store)
    record, _ = rounds.begin(many.store, holder("run-1"), noon)
    (item,) = record.inputs
    assert names(many.store) == {item.key.split("/")[1]}
    assert not names(many.store) & before
    assert rounds.ledger_of(many.store, record).counts() == record.counts


def test_clean_merges_and_says_so_before(many, noon):
    before, counts = names(many.store), many.ledger().counts()
    assert len(segments.mergeable(many.store)) == 9
    gone = {entry.key.split("/")[1] for entry in cleaning.clean(many.store, 0, noon)}
    assert gone == before
    assert len(names(many.store)) == 1
    assert many.ledger().counts() == counts
    assert lock.read(many.store)[0].holder is None
    assert cleaning.clean(many.store, 0, noon) == []


def test_clean_leaves_segments_alone_while_a_run_is_alive_or_a_round_unfinished(many, holder, noon, monkeypatch):
    before = many.files()
    with monkeypatch.context() as patch:
        patch.setattr(segments, "MANY_SMALL", 100)
        rounds.begin(many.store, holder("run-1"), noon)
    frozen = names(many.store)
    with pytest.raises(LockedError, match="locked by run run-1"):
        cleaning.clean(many.store, 0, noon)
    lock.release(many.store, "run-1")
    assert cleaning.clean(many.store, 0, noon) == []
    assert names(many.store) == frozen
    assert before.keys() <= many.files().keys()


@pytest.mark.parametrize("step", [*range(8), *range(8, 48, 5)])
def test_a_kill_at_any_step_of_merging_changes_no_ledger_and_the_next_finishes(many, noon, monkeypatch, step):
    """Each write and each deletion is a step; the kill comes before it."""
    counts = many.ledger().counts()
    left = [step]
    with monkeypatch.context() as patch:
        for name in ("create", "create_from", "swap", "delete"):
            patch.setattr(Store, name, killing(getattr(Store, name), left))
        try:
            cleaning.clean(many.store, 0, noon)
        except KilledError:
            patch.undo()
    assert many.ledger().counts() == counts
    lock.unlock(many.store)
    cleaning.clean(many.store, 0, noon)
    assert len(names(many.store)) == 1
    assert many.ledger().counts() == counts


def test_a_reader_that_comes_too_late_for_a_segment_starts_again(many, noon, monkeypatch):
    """Between the listing and the reading of a plan, somebody merges."""
    counts, real = many.ledger().counts(), derive

    def late(*arguments):
        monkeypatch.setattr("alfamix_core.project.ledger.derive", real)
        cleaning.clean(many.store, 0, noon)
        return real(*arguments)

    monkeypatch.setattr("alfamix_core.project.ledger.derive", late)
    inputs, ledger = current(many.store, many.settings, noon)
    assert ledger.counts() == counts
    assert len(inputs) == 1


def test_what_was_merged_between_the_plan_and_the_lock_is_not_frozen(many, holder, noon, monkeypatch):
    real = lock.acquire

    def late(*arguments):
        monkeypatch.setattr(lock, "acquire", real)
        cleaning.clean(many.store, 0, noon)
        return real(*arguments)

    monkeypatch.setattr(lock, "acquire", late)
    record, _ = rounds.begin(many.store, holder("run-1"), noon)
    assert {item.key.split("/")[1] for item in record.inputs} == names(many.store)
    assert rounds.ledger_of(many.store, record).counts() == record.counts


def test_readers_and_merging_at_once_always_see_the_same_ledger(many, noon):
    counts, found, ended = many.ledger().counts(), [], threading.Event()

    def read():
        store = open_store(many.store.uri)
        while not ended.is_set():
            found.append(current(store, many.settings, noon)[1].counts())

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            cleaning.clean(many.store, 0, noon)
            segments.delete(many.store, names(many.store))
            cut(many)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert found
    assert set(found) == {counts}


def test_two_segments_that_share_files_are_one_and_the_rest_is_read_as_lines(made, monkeypatch, noon):
    """Two deliveries compacted at the same moment, each with the files that it saw."""
    monkeypatch.setattr(segments, "WORTH_LINES", 1)
    made.drop("a", "b", "c")
    made.drop("b", "d")
    inputs = freeze(made.store)
    segments.compact(made.store, inputs[:1], raw.read(made.store, made.settings, inputs[:1]))
    segments.compact(made.store, inputs, raw.read(made.store, made.settings, inputs))
    made.drop("c", "e")
    assert [item.key.split("/")[0] for item in freeze(made.store)] == ["ledger", "drops"]
    assert len(segments.superseded(made.store)) == 1
    assert made.ledger().counts().samples == 4


# looking ids up


class Counting:
    """A store that counts the bytes that are read."""

    def __init__(self, store, monkeypatch):
        self.bytes = 0
        for name, size in (("read", lambda found: len(found.data)), ("read_range", len)):
            self._count(monkeypatch, name, size)
        real = type(store).fetch

        def fetch(store, key, path):
            real(store, key, path)
            self.bytes += path.stat().st_size

        monkeypatch.setattr(type(store), "fetch", fetch)

    def _count(self, monkeypatch, name, size):
        real = getattr(Store, name)

        def read(store, *arguments):
            found = real(store, *arguments)
            self.bytes += size(found)
            return found

        monkeypatch.setattr(Store, name, read)


@pytest.fixture
def large(made_anywhere, monkeypatch, tmp_path):
    """A project with a segment of 3,000 samples, 100 in a row group."""
    monkeypatch.setattr(segments, "WORTH_LINES", 1_000)
    monkeypatch.setattr(raw, "BLOCK", 100)
    made_anywhere.configure(data_prefixes=["s3://pictures"])
    (tmp_path / "m.jsonl").write_text(
        "".join(f'{{"uri": "s3://pictures/{n:05d}/{n * n:040d}.png"}}\n' for n in range(3_000))
    )
    register(made_anywhere.store, (tmp_path / "m.jsonl").as_uri())
    return made_anywhere


def test_the_rows_found_are_those_of_a_look_at_every_row(large):
    ((name, (card, item)),) = segments.usable(large.store).items()
    every = segments.load(large.store, large.settings, item).samples
    ids = every["sample_id"].to_pylist()
    for wanted in ([], ["0" * 16], ids[:1], [ids[0], ids[150], ids[2_999], "x"], ids):
        array = pa.array(wanted, pa.string())
        slow = every.filter(pc.is_in(every["sample_id"], value_set=array))
        assert segments.matching(large.store, name, card, array).equals(slow)


def test_of_new_ids_only_fingerprints_are_read_and_of_known_ones_their_row_groups(large, monkeypatch):
    ((name, (card, item)),) = segments.usable(large.store).items()
    every = segments.load(large.store, large.settings, item).samples["sample_id"].to_pylist()
    size = large.store.entry(item.key.replace(CARD_FILE, "samples.parquet")).size
    ids = large.store.entry(item.key.replace(CARD_FILE, "ids.parquet")).size
    counting = Counting(large.store, monkeypatch)
    assert segments.matching(large.store, name, card, pa.array(["new"])).num_rows == 0
    assert counting.bytes == ids
    counting.bytes = 0
    assert segments.matching(large.store, name, card, pa.array(every[100:102])).num_rows == 2
    footer = 65_536
    assert counting.bytes - ids <= size / 30 * 1.5 + footer


@pytest.mark.parametrize("table", ["ids", "samples"])
def test_damage_is_seen_in_what_is_read_in_parts_too(large, table):
    ((name, (card, item)),) = segments.usable(large.store).items()
    some = segments.load(large.store, large.settings, item).samples["sample_id"].slice(0, 1).combine_chunks()
    key = item.key.replace(CARD_FILE, f"{table}.parquet")
    stored = large.store.read(key)
    place = 300
    large.store.delete(key)
    large.store.create(key, stored.data[:place] + bytes([stored.data[place] ^ 255]) + stored.data[place + 1 :])
    with pytest.raises(InputError, match=rf"{table}.parquet is not what was written"):
        segments.matching(large.store, name, card, some)


def test_many_small_drops_are_compacted_as_they_come(made, monkeypatch, tmp_path):
    """Or each would read all those before it."""
    monkeypatch.setattr(segments, "WORTH_FILES", 4)
    made.configure(data_prefixes=["s3://pictures"])
    for number in range(10):
        (tmp_path / f"{number}.jsonl").write_text(f'{{"uri": "s3://pictures/{number}"}}\n')
        register(made.store, (tmp_path / f"{number}.jsonl").as_uri())
    inputs = freeze(made.store)
    assert sum(item.key.startswith(layout.DROPS) for item in inputs) <= 4
    assert made.ledger().counts().samples == 10
