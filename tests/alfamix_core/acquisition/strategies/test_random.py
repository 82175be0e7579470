import torch

from alfamix_core.acquisition import noise, strategies


def test_a_score_is_minus_the_uniform_number_of_seed_and_position(make_task):
    task, strategy = make_task(), strategies.load("random")
    result = strategy.score(task.pool, strategy.prepare(task.labelled, task.head, 9)).scores_n
    expected = -noise.uniform(noise.fold(9, noise.RANDOM_ORDER), task.pool.positions_n)
    assert torch.equal(result, expected.float())


def test_another_seed_asks_others_and_does_not_repeat_itself(make_task, generator):
    task, strategy = make_task(), strategies.load("random")
    asked = []
    for seed in (0, 1):
        state = strategy.prepare(task.labelled, task.head, seed)
        asked.append(strategy.select(strategy.score(task.pool, state), state, 50, generator()).tolist())
    assert asked[0] != asked[1]
    assert len(set(asked[0])) == 50
