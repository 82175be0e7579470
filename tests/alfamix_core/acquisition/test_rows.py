import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.rows import Rows, unit, whole
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.types import Scores


def columns(lengths, device="cpu"):
    """Parts that hold 0, 1, 2, … and the tensor they stand for."""
    everything = torch.arange(sum(lengths) * 3, device=device).reshape(-1, 3)
    return Rows(torch.split(everything, lengths)), everything


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.data())
def test_rows_are_taken_as_from_their_concatenation(lengths, data):
    rows, everything = columns(lengths)
    n = len(everything)
    assert (len(rows), rows.shape, rows.dtype) == (n, everything.shape, torch.int64)
    assert torch.equal(whole(rows), everything)
    first, last = data.draw(st.integers(-7, 30)), data.draw(st.integers(-7, 30) | st.none())
    index = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), max_size=9)) if n else [], dtype=torch.int64)
    assert torch.equal(rows[first:last], everything[first:last])
    assert torch.equal(rows[index], everything[index])
    some = rows.only(index)
    assert torch.equal(whole(some), everything[index])
    assert torch.equal(some[first:last], everything[index][first:last])
    assert torch.equal(some.only(torch.arange(len(index)).flip(0))[:], everything[index].flip(0))
    joined = Rows.join([some, rows, rows.only(index)])
    assert torch.equal(whole(joined), torch.cat([everything[index], everything, everything[index]]))
    assert len(joined.parts) == len(lengths), "what is shared is listed once"


def test_a_slice_within_a_part_is_not_copied(device):
    rows, _ = columns([4, 5], device)
    assert rows[5:8].data_ptr() == rows.parts[1][1:].data_ptr()


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_merge_without_reading_rows(device, interleaved):
    random = torch.Generator().manual_seed(0)
    embeddings = torch.randn(20, 3, generator=random).to(device)
    order = (torch.randperm(20, generator=random) if interleaved else torch.arange(20)).to(device)
    parts = []
    for owned in torch.split(order, [7, 0, 13]):
        owned = owned.sort().values
        parts.append(Scores(owned, owned.float(), {"embeddings": Rows((embeddings[owned],)), "nearest": -owned}))
    for given_parts in (parts, parts[::-1]):
        merged = Scores.merge(given_parts)
        assert merged.positions_n.tolist() == merged.scores_n.tolist() == list(range(20))
        assert isinstance(merged.rows["embeddings"], Rows)
        assert {part.data_ptr() for part in merged.rows["embeddings"].parts} <= {
            part.rows["embeddings"].parts[0].data_ptr() for part in parts
        }
        assert torch.equal(merged.column("embeddings"), embeddings)
        assert torch.equal(merged.column("nearest"), -torch.arange(20, device=device))
        index = torch.tensor([3, 11, 12], device=device)
        assert torch.equal(merged.take(index).column("embeddings"), embeddings[index])


@pytest.mark.on_real_devices
@pytest.mark.parametrize("name", strategies.names())
def test_every_strategy_chooses_the_same_from_rows_in_parts(make_task, generator, name):
    task = make_task(N=120)
    strategy = strategies.load(name)
    state = strategy.prepare(task.labelled, task.head, 0)
    parts = [
        score_shard(strategy, [task.part(start, stop)], state, 30) for start, stop in [(0, 37), (37, 38), (38, 120)]
    ]
    mapped = [
        Scores(
            part.positions_n,
            part.scores_n,
            {key: Rows((whole(column),)) if len(column.shape) > 1 else column for key, column in part.rows.items()},
        )
        for part in parts
    ]
    expected, result = (
        strategy.select(strategy.keep(Scores.merge(these), state, 30), state, 30, generator())
        for these in (parts, mapped)
    )
    assert result.tolist() == expected.tolist()


def test_unit_rows_of_several_columns_are_those_of_their_concatenation(device):
    rows = 5 * torch.randn(5000, 7, generator=torch.Generator().manual_seed(0)).half().to(device)
    rows[17] = 0
    parts = Rows((rows[:10], rows[10:4100], rows[4100:4600]))
    assert torch.equal(unit(parts, rows[4600:]), torch.nn.functional.normalize(rows.float(), dim=1))
    assert unit(rows[:0]).shape == (0, 7)


def test_rows_on_a_device_stay_where_they_are_until_they_are_taken(device):
    """Parts in memory, taken on the device: by slice, by an index on either, some of some, and joined."""
    everything = torch.arange(20.0).view(10, 2)
    rows = Rows((everything[:4], everything[4:])).on(device)
    index = torch.tensor([7, 0, 5])
    for taken in (rows[2:6], rows[index], rows[index.to(device)], rows.only(index)[:], Rows.join([rows, rows])[:]):
        assert taken.device.type == device.type
    assert rows.device == device
    assert rows.parts[0].device.type == "cpu"
    assert rows.only(index.to(device)).only(torch.tensor([1, 2]))[:].cpu().tolist() == everything[[0, 5]].tolist()


@pytest.mark.parametrize("name", ["coreset", "badge", "cdal", "typiclust", "class_threshold", "alfamix", "uherding"])
def test_a_choice_from_rows_that_stay_in_memory_is_that_of_rows_on_the_device(device, make_task, name):
    task = make_task(N=80)
    strategy = strategies.load(name)
    state = strategy.prepare(task.labelled, task.head, 0)
    scores = strategy.score(task.pool, state)
    rows = {
        key: Rows((column.cpu(),)).on(device) if column.dim() > 1 else column for key, column in scores.rows.items()
    }
    away = Scores(scores.positions_n, scores.scores_n, rows)
    there, here = (strategy.select(entry, state, 12, torch.Generator().manual_seed(0)) for entry in (away, scores))
    assert torch.equal(there, here)
