import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition.relocation import relocations


def nearest_two(rows, centres):
    squares = (rows[:, None] - centres).square().sum(dim=2)
    first = squares.argmin(dim=1)
    rest = squares.scatter(1, first[:, None], torch.inf)
    both = torch.stack([first, rest.argmin(dim=1)], dim=1)
    return both, squares.gather(1, both)


def slow_relocations(rows, centres, gumbel):
    n, B = len(rows), len(centres)
    both, squares = nearest_two(rows, centres)
    owner = both[:, 0].tolist()
    worth, gain, drawn, heir = [0.0] * B, [0.0] * B, [0] * B, list(range(B))
    for cluster in range(B):
        members = [row for row in range(n) if owner[row] == cluster]
        if not members:
            continue
        worth[cluster] = sum(float(squares[row, 1] - squares[row, 0]) for row in members)
        drawn[cluster] = max(members, key=lambda row: (float(squares[row, 0].log() + gumbel[row]), row))
        new = rows[drawn[cluster]]
        gain[cluster] = sum(max(0.0, float(squares[row, 0] - (rows[row] - new).square().sum())) for row in members)
        seconds = [int(both[row, 1]) for row in members]
        heir[cluster] = max(set(seconds), key=lambda other: (seconds.count(other), other))
    busy, moves = set(), {}
    for centre in sorted(range(B), key=lambda cluster: worth[cluster]):
        free = [target for target in sorted(range(B), key=lambda target: -gain[target]) if target not in busy]
        if not free or gain[free[0]] <= worth[centre]:
            break
        if centre in busy or heir[centre] in moves or free[0] in (centre, heir[centre]):
            continue
        moves[centre] = drawn[free[0]]
        busy |= {centre, free[0], heir[centre]}
    return list(moves.items())


def test_a_centre_leaves_a_shared_heap_for_a_cluster_of_two(device):
    """Centres at 0 and 1 share a heap, one at 50 serves those at 40 and 60: the least needed goes to a row there."""
    rows = torch.tensor([[0.0], [0.0], [1.0], [40.0], [40.0], [60.0]], device=device)
    centres = torch.tensor([[0.0], [1.0], [50.0]], device=device)
    ((centre, row),) = relocations(rows, 3, *nearest_two(rows, centres), torch.arange(6.0, device=device))
    assert (centre, row) == (1, 5)


def test_nothing_moves_where_every_heap_has_its_centre(device):
    rows = torch.tensor([[0.0], [0.5], [40.0], [40.5]], device=device)
    centres = torch.tensor([[0.25], [40.25]], device=device)
    assert relocations(rows, 2, *nearest_two(rows, centres), torch.zeros(4, device=device)) == []


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 60))
def test_as_the_slow_twin(seed, count, n):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randint(-6, 7, (n, 2), generator=random).float()
    centres = torch.randint(-6, 7, (count, 2), generator=random).float() + 0.5
    gumbel = torch.rand(n, generator=random)
    assert relocations(rows, count, *nearest_two(rows, centres), gumbel) == slow_relocations(rows, centres, gumbel)
