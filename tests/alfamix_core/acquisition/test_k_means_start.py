import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition.k_means_start import greedy_start


def slow_greedy_start(rows, count, uniform):
    """In plain Python and float64."""
    rows = rows.double().tolist()

    def square(i, j):
        return sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True))

    chosen = [0]
    while len(chosen) < count:
        nearest = [min(square(i, j) for j in chosen) for i in range(len(rows))]
        if sum(nearest) == 0:
            break
        drawn = []
        for u in uniform[len(chosen)].tolist():
            goal, upto, row = u * sum(nearest), 0.0, 0
            for row, weight in enumerate(nearest):  # noqa: B007
                upto += weight
                if upto >= goal:
                    break
            drawn.append(row)
        left = [sum(min(near, square(i, row)) for i, near in enumerate(nearest)) for row in drawn]
        chosen.append(drawn[left.index(min(left))])
    return chosen + [row for row in range(len(rows)) if row not in chosen][: count - len(chosen)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 4), st.data())
def test_as_the_slow_twin(seed, m, trials, data):
    count = data.draw(st.integers(1, m))
    random = torch.Generator().manual_seed(seed)
    rows = torch.randint(-4, 5, (m, 3), generator=random).float()
    uniform = torch.rand(count, trials, generator=random, dtype=torch.float64)
    result = greedy_start(rows, count, uniform).tolist()
    assert result == slow_greedy_start(rows, count, uniform)
    assert len(set(result)) == count


@pytest.mark.on_real_devices
def test_draws_by_squared_distance(device):
    """From 0 among 0, 1 and 3 the others are drawn with 1 : 9."""
    rows = torch.tensor([[0.0], [1.0], [3.0]], device=device)
    uniform = torch.rand(1000, 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    second = [int(greedy_start(rows, 2, draw)[1]) for draw in uniform]
    assert second.count(2) / 1000 == pytest.approx(0.9, abs=0.03)


def test_of_two_drawn_the_better_stays(device):
    """Among 0, 1, 1, 1 and 3: 1 leaves 4 (of 3), 3 leaves 3 (of the three ones)."""
    rows = torch.tensor([[0.0], [1.0], [1.0], [1.0], [3.0]], device=device)
    uniform = torch.tensor([[0.5, 0.5], [0.1, 0.9]], dtype=torch.float64, device=device)
    assert greedy_start(rows, 2, uniform).tolist() == [0, 4]
