import math

import torch

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.types import Features, Labelled, LinearHead

HEAD = LinearHead(torch.eye(2), torch.zeros(2))
NONE = Labelled(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
LOWEST = torch.finfo(torch.float32).min


def test_the_shortest_way_is_first_and_those_without_a_way_are_last(device):
    strategy = strategies.load("dfal")
    state = strategy.prepare(NONE, HEAD, 0)
    column = torch.tensor([LOWEST, 2.0, -3.0, 0.5, -1.0, 0.0, LOWEST], device=device)
    scores = strategy.score(Features(torch.arange(7, device=device), deepfool_n=column), state)
    assert scores.scores_n.tolist() == [-math.inf, -2, -math.inf, -0.5, -math.inf, 0, -math.inf]
    assert strategy.select(scores, state, 7, torch.Generator()).tolist() == [5, 3, 1, 4, 2, 0, 6]
    assert strategy.keep(scores, state, 4).positions_n.tolist() == [1, 3, 4, 5]
