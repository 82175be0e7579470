import torch

from alfamix_core.acquisition.types import Scores
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
    assert all(torch.equal(found.rows[name], rows[name]) for name in rows)


def test_a_shard_without_samples_has_no_scores(tmp_path):
    write_scores(tmp_path, Scores(torch.empty(0, dtype=torch.int64), torch.empty(0), {"x": torch.empty(0, 3)}))
    found = read_scores(tmp_path)
    assert (len(found.positions_n), found.rows["x"].shape) == (0, (0, 3))
