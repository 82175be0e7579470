import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition import noise, strategies
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from alfamix_core.errors import InputError

HEAD = LinearHead(torch.eye(2), torch.zeros(2))
NONE = Labelled(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))


def choose(device, embeddings, logits, need, seed=0):
    strategy = strategies.load("badge")
    state = strategy.prepare(NONE, HEAD, 0)
    positions = torch.arange(len(embeddings), device=device)
    scores = strategy.score(Features(positions, embeddings.to(device), logits.to(device)), state)
    return scores.scores_n, strategy.select(scores, state, need, torch.Generator().manual_seed(seed)).tolist()


EMBEDDINGS = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
LOGITS = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5]]).log()


@pytest.mark.on_real_devices
def test_three_samples_by_hand(device):
    """Squared norms .32, .18, .5: the third first; to it .82 and .68: the first follows with 0.5467."""
    scores, result = choose(device, EMBEDDINGS, LOGITS, 3)
    assert scores.tolist() == pytest.approx([0.32, 0.18, 0.5], abs=1e-6)
    assert result[0] == 2
    seconds = [choose(device, EMBEDDINGS, LOGITS, 2, seed)[1][1] for seed in range(1000)]
    assert seconds.count(0) / 1000 == pytest.approx(0.5467, abs=0.05)


def by_gradients(device, embeddings, logits, need, seed):
    """The gradients formed, N x K D, and a pass for each draw."""
    embeddings, logits = embeddings.to(device), logits.to(device)
    pull = logits.double().softmax(dim=1)
    pull[torch.arange(len(pull)), logits.argmax(dim=1)] -= 1
    gradients = (pull[:, :, None] * embeddings.double()[:, None, :]).flatten(1)
    nearest, chosen = gradients.square().sum(dim=1), []
    key = noise.fold(noise.draw_seed(torch.Generator().manual_seed(seed)), noise.BADGE_DRAW)
    for number in range(need):
        chances = nearest.log() + noise.gumbel(noise.fold(key, number), torch.arange(len(pull), device=device))
        chosen.append(int(chances.argmax() if number else nearest.argmax()))
        to_chosen = (gradients - gradients[chosen[-1]]).square().sum(dim=1)
        nearest = torch.minimum(nearest, to_chosen) if number else to_chosen
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_is_that_of_the_gradients_themselves(device, seed):
    random = torch.Generator().manual_seed(seed)
    embeddings, logits = torch.randn(200, 6, generator=random), 2 * torch.randn(200, 4, generator=random)
    assert choose(device, embeddings, logits, 60, seed)[1] == by_gradients(device, embeddings, logits, 60, seed)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 60), D=st.integers(1, 6), K=st.integers(2, 6), seed=st.integers(0, 10**6), data=st.data())
def test_any_choice_is_that_of_the_gradients_themselves(device, n, D, K, seed, data):
    need = data.draw(st.integers(1, n))
    random = torch.Generator().manual_seed(seed)
    embeddings, logits = 10 * torch.randn(n, D, generator=random), 2 * torch.randn(n, K, generator=random)
    assert choose(device, embeddings, logits, need, seed)[1] == by_gradients(device, embeddings, logits, need, seed)


def test_copies_fill_up_by_score(device):
    result = choose(device, EMBEDDINGS.repeat(2, 1), LOGITS.repeat(2, 1), 6)[1]
    assert sorted(row % 3 for row in result[:3]) == [0, 1, 2]
    assert [row % 3 for row in result[3:]] == [2, 0, 1]


def test_a_pool_of_certain_samples_is_ranked_by_score_and_position(device):
    """At a gap of 2000 even e^-4000 is 0: no gradient, nothing to draw."""
    logits = torch.tensor([[2000.0, 0.0]]).repeat(5, 1)
    assert choose(device, torch.ones(5, 2), logits, 4)[1] == [0, 1, 2, 3]


def test_memory_does_not_grow_with_classes_times_width():
    """4,000 samples, 200 classes, 256 numbers: the gradients would be 1.6 GB in float64."""
    random = torch.Generator().manual_seed(0)
    embeddings, logits = torch.randn(4000, 256, generator=random), torch.randn(4000, 200, generator=random)
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        choose(torch.device("cpu"), embeddings, logits, 5)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 1e6 < largest < 60e6


def test_one_class_is_too_few_to_compare(device):
    with pytest.raises(InputError, match="two classes are needed"):
        choose(device, torch.ones(2, 2), torch.ones(2, 1), 1)
