import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from alfamix_core.acquisition.clustering import _spread_start, kmeans, representatives

INITS = ("random", "k-means++")


def mixture(n, D=16, groups=30, seed=0):
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, D, generator=random)
    return centres[torch.randint(groups, (n,), generator=random)] + torch.randn(n, D, generator=random)


@pytest.mark.parametrize("init", INITS)
def test_two_heaps_by_hand(device, init):
    """0, 1, 2 and 10, 11, 12 on a line: means 1 and 11 are members, the inertia is 4."""
    rows = torch.tensor([[0.0], [10.0], [1.0], [11.0], [2.0], [12.0]], device=device)
    found = kmeans(rows, torch.arange(6, device=device), 2, 0, init)
    assert sorted(found.centres_BD[:, 0].tolist()) == [1.0, 11.0]
    assert found.inertia == 4
    assert representatives(found).tolist() == [2, 3]


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("count", [5, 60, 200])
def test_inertia_is_that_of_scikit_learn_within_a_few_percent(device, count, init):
    rows = torch.nn.functional.normalize(mixture(1500), dim=1)
    theirs = KMeans(count, n_init=1, random_state=0).fit(rows.numpy()).inertia_
    ours = [kmeans(rows.to(device), torch.arange(1500, device=device), count, seed, init).inertia for seed in range(3)]
    assert max(ours) < 1.05 * theirs


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("count", [1, 2, 37, 299, 300])
def test_every_cluster_has_a_representative_of_its_own(device, count, init):
    rows = mixture(300).to(device)
    found = kmeans(rows, torch.arange(300, device=device), count, 1, init)
    chosen = representatives(found)
    assert len(chosen) == len(chosen.unique()) == count
    assert sorted(found.owner_n[chosen].tolist()) == list(range(count))


def test_the_representative_is_the_member_nearest_to_the_mean(device):
    rows = mixture(400).to(device)
    found = kmeans(rows, torch.arange(400, device=device), 20, 0)
    for cluster, chosen in enumerate(representatives(found)[found.owner_n[representatives(found)].argsort()]):
        members = (found.owner_n == cluster).nonzero()[:, 0]
        distances = (rows[members] - rows[members].mean(dim=0)).norm(dim=1)
        assert (rows[chosen] - rows[members].mean(dim=0)).norm() <= distances.min() + 1e-5


@pytest.mark.parametrize("init", INITS)
def test_empty_clusters_are_refilled(init):
    """180 equal rows and 20 others: a random start takes many equal rows, whose clusters are empty at first."""
    rows = torch.cat([torch.zeros(180, 4), mixture(20, D=4)])
    found = kmeans(rows, torch.arange(200), 21, 0, init)
    assert found.owner_n.bincount(minlength=21).min() >= 1
    assert found.inertia == 0
    assert representatives(found).tolist() == [0, *range(180, 200)]


@pytest.mark.parametrize("init", INITS)
def test_fewer_distinct_rows_than_clusters_leave_some_empty(init):
    rows = torch.tensor([[0.0], [0.0], [5.0], [5.0]])
    found = kmeans(rows, torch.arange(4), 3, 0, init)
    assert representatives(found).tolist() == [0, 2]


@pytest.mark.parametrize("init", INITS)
def test_the_same_seed_gives_the_same_bits_and_no_global_state_is_touched(device, init):
    rows, positions = mixture(500).to(device), torch.arange(500, device=device)
    before = torch.random.get_rng_state()
    first, second = (kmeans(rows, positions, 40, 3, init) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.owner_n, second.owner_n)
    assert torch.equal(first.centres_BD, second.centres_BD)
    other = kmeans(rows, positions, 40, 4, init)
    assert not torch.equal(first.centres_BD, other.centres_BD)


def test_the_random_start_belongs_to_positions():
    """The rows of a snapshot that lost others keep their numbers: here the start is the same three rows."""
    rows = torch.tensor([[0.0], [100.0], [200.0], [50.0]])
    found = kmeans(rows, torch.tensor([5, 9, 70, 71]), 4, 0)
    assert found.inertia == 0


def test_a_spread_start_draws_by_squared_distance():
    """From the first of 0, 1 and 3 the others are drawn with 1 : 9, from the others with 1 : 4 and 9 : 4."""
    rows = torch.tensor([[0.0], [1.0], [3.0]])
    pairs = [tuple(_spread_start(rows, torch.arange(3), 2, seed)[:, 0].tolist()) for seed in range(2000)]
    for first, second, share in ((0, 3, 0.9), (1, 3, 0.8), (3, 0, 9 / 13)):
        starts = [pair for pair in pairs if pair[0] == first]
        assert len(starts) / 2000 == pytest.approx(1 / 3, abs=0.04)
        assert sum(pair[1] == second for pair in starts) / len(starts) == pytest.approx(share, abs=0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.data())
def test_as_many_representatives_as_clusters_or_distinct_rows(seed, n, data):
    count = data.draw(st.integers(1, n))
    init = data.draw(st.sampled_from(INITS))
    rows = torch.randint(3, (n, 2), generator=torch.Generator().manual_seed(seed)).float()
    chosen = representatives(kmeans(rows, torch.arange(n), count, seed, init))
    assert len(chosen) == len(set(chosen.tolist())) == min(count, len(rows.unique(dim=0)))
