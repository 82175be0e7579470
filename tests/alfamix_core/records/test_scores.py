import torch

from alfamix_core.acquisition.rows import Rows
from alfamix_core.acquisition.types import Scores
from alfamix_core.records import scores as records
from alfamix_core.records.scores import read_scores, write_scores


def test_scores_are_read_back_with_their_rows(tmp_path):
    """-inf is a legal score; the strategy's rows keep names, even one called like ours."""
    rows = {"positions": torch.ones(2, 3).half(), "caps": torch.tensor([1, 2])}
    scores = Scores(torch.tensor([3, 9]), torch.tensor([0.5, -torch.inf]), rows)
    write_scores(tmp_path, scores)
    found = read_scores(tmp_path)
    assert torch.equal(found.positions_n, scores.positions_n)
    assert torch.equal(found.scores_n, scores.scores_n)
    assert found.rows.keys() == rows.keys()
    assert all(torch.equal(found.column(name), rows[name]) for name in rows)


def test_a_shard_without_samples_has_no_scores(tmp_path):
    write_scores(tmp_path, Scores(torch.empty(0, dtype=torch.int64), torch.empty(0), {"x": torch.empty(0, 3)}))
    found = read_scores(tmp_path)
    assert (len(found.positions_n), found.rows["x"].shape) == (0, (0, 3))


def test_wide_rows_are_written_in_parts_and_read_when_they_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_PART_BYTES", 3 * 5 * 4)
    wide = torch.arange(35.0).reshape(7, 5)
    column = Rows((wide[:4], wide[4:]))
    write_scores(tmp_path, Scores(torch.arange(7), torch.zeros(7), {"x-00001": column, "y": wide[:, 0]}))
    assert len(list(tmp_path.glob("x-00001-*.safetensors"))) == 3
    found = read_scores(tmp_path)
    assert [len(part) for part in found.rows["x-00001"].parts] == [3, 3, 1]
    assert torch.equal(found.column("x-00001"), wide)
    assert torch.equal(found.column("y"), wide[:, 0])
