import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition.clustering import Clusters, grouped, kmeans

EFFORTS = ("fast", "best")


def representatives(result):
    """The first of each cluster that is not empty."""
    order = torch.arange(len(result.owner_n), device=result.owner_n.device)
    return torch.stack([rows[0] for rows in grouped(result, order) if len(rows)]).sort().values


def mixture(n, D=16, groups=30, seed=0):
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, D, generator=random)
    return centres[torch.randint(groups, (n,), generator=random)] + torch.randn(n, D, generator=random)


@pytest.mark.parametrize("effort", EFFORTS)
def test_two_groups_by_hand(device, effort):
    """0, 1, 2 and 10, 11, 12 on a line: means 1 and 11 are members, the inertia is 4."""
    rows = torch.tensor([[0.0], [10.0], [1.0], [11.0], [2.0], [12.0]], device=device)
    result = kmeans(rows, torch.arange(6, device=device), 2, 0, effort)
    assert sorted(result.centres_BD[:, 0].tolist()) == [1.0, 11.0]
    assert result.inertia == 4
    assert representatives(result).tolist() == [2, 3]


@pytest.mark.on_real_devices
@pytest.mark.parametrize("D", [16, 300])
@pytest.mark.parametrize("count", [5, 60, 200])
def test_inertia_is_that_of_scikit_learn_within_two_percent(device, count, D):
    rows = torch.nn.functional.normalize(mixture(1500, D=D), dim=1)
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    reference = [cluster.KMeans(count, n_init=1, random_state=seed).fit(rows.numpy()).inertia_ for seed in range(3)]
    positions = torch.arange(1500, device=device)
    fast = [kmeans(rows.to(device), positions, count, seed).inertia for seed in range(3)]
    assert sum(fast) < 1.02 * sum(reference)
    assert kmeans(rows.to(device), positions, count, 0, "best").inertia <= 1.001 * min(*fast, *reference)


@pytest.mark.parametrize("D", [32, 200])
def test_every_heap_gets_a_cluster_of_its_own(device, D):
    """As many round groups far apart as clusters: where Lloyd's rounds alone stay in a local minimum."""
    random = torch.Generator().manual_seed(1)
    heap = torch.randint(80, (1600,), generator=random)
    rows = 4 * torch.randn(80, D, generator=random)[heap] + torch.randn(1600, D, generator=random)
    owner = kmeans(rows.to(device), torch.arange(1600, device=device), 80, 0).owner_n.cpu()
    assert len(torch.unique(heap * 80 + owner)) == 80


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("D", [8, 200])
def test_the_best_partition_is_at_rest(effort, D):
    """The inertia is the sum of squares to the means of the owners; with "best" every row is with its nearest mean."""
    rows = mixture(700, D=D)
    result = kmeans(rows, torch.arange(700), 25, 0, effort)
    wide = rows.double()
    means = torch.stack([wide[result.owner_n == cluster].mean(dim=0) for cluster in range(25)])
    squares = torch.stack([(wide - mean).square().sum(dim=1) for mean in means], dim=1)
    own = squares[torch.arange(700), result.owner_n]
    assert result.inertia == pytest.approx(float(own.sum()), rel=1e-5)
    assert (own <= squares.amin(dim=1) * (1 + 1e-4)).float().mean() >= (1 if effort == "best" else 0.9)


def test_an_offset_costs_no_digits(device):
    rows, positions = mixture(900, D=20).to(device), torch.arange(900, device=device)
    plain, shifted = (kmeans(rows + offset, positions, 40, 0) for offset in (0.0, 1000.0))
    assert shifted.inertia == pytest.approx(plain.inertia, rel=0.02)


@pytest.mark.on_real_devices
@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("count", [1, 2, 37, 299, 300])
def test_every_cluster_has_a_representative_of_its_own(device, count, effort):
    rows = mixture(300).to(device)
    result = kmeans(rows, torch.arange(300, device=device), count, 1, effort)
    chosen = representatives(result)
    assert len(chosen) == len(chosen.unique()) == count
    assert sorted(result.owner_n[chosen].tolist()) == list(range(count))


def test_the_representative_is_the_member_nearest_to_the_mean(device):
    rows = mixture(400).to(device)
    result = kmeans(rows, torch.arange(400, device=device), 20, 0)
    for cluster, chosen in enumerate(representatives(result)[result.owner_n[representatives(result)].argsort()]):
        members = (result.owner_n == cluster).nonzero()[:, 0]
        distances = (rows[members] - rows[members].mean(dim=0)).norm(dim=1)
        assert (rows[chosen] - rows[members].mean(dim=0)).norm() <= distances.min() + 1e-5


@pytest.mark.parametrize("effort", EFFORTS)
def test_empty_clusters_are_refilled(device, effort):
    """180 equal rows and 20 others: a random start takes many equal rows, whose clusters are empty at first."""
    rows = torch.cat([torch.zeros(180, 4), mixture(20, D=4)]).to(device)
    result = kmeans(rows, torch.arange(200, device=device), 21, 0, effort)
    assert result.owner_n.bincount(minlength=21).min() >= 1
    assert result.inertia == 0
    assert representatives(result).tolist() == [0, *range(180, 200)]


@pytest.mark.parametrize("effort", EFFORTS)
def test_fewer_distinct_rows_than_clusters_leave_some_empty(device, effort):
    rows = torch.tensor([[0.0], [0.0], [5.0], [5.0]], device=device)
    result = kmeans(rows, torch.arange(4, device=device), 3, 0, effort)
    assert representatives(result).tolist() == [0, 2]


@pytest.mark.on_real_devices
@pytest.mark.parametrize("effort", EFFORTS)
def test_the_same_seed_gives_the_same_bits_and_no_global_state_is_touched(device, effort):
    rows, positions = mixture(500).to(device), torch.arange(500, device=device)
    before = torch.random.get_rng_state()
    first, second = (kmeans(rows, positions, 40, 3, effort) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.owner_n, second.owner_n)
    assert torch.equal(first.centres_BD, second.centres_BD)
    other = kmeans(rows, positions, 40, 4, effort)
    assert not torch.equal(first.centres_BD, other.centres_BD)


def test_all_rows_as_clusters_cost_nothing(device):
    rows = torch.tensor([[0.0], [100.0], [200.0], [50.0]], device=device)
    assert kmeans(rows, torch.tensor([5, 9, 70, 71], device=device), 4, 0).inertia == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.data())
def test_as_many_representatives_as_clusters_or_distinct_rows(seed, n, data):
    count = data.draw(st.integers(1, n))
    effort = data.draw(st.sampled_from(EFFORTS))
    rows = torch.randint(3, (n, 2), generator=torch.Generator().manual_seed(seed)).float()
    chosen = representatives(kmeans(rows, torch.arange(n), count, seed, effort))
    assert len(chosen) == len(set(chosen.tolist())) == min(count, len(rows.unique(dim=0)))


def test_members_within_a_millionth_of_the_nearest_count_as_equal_by_hand(device):
    """Cluster 0: rows 0, 1 and 2 at 0.5, 0.4999995 and 0.7; the order says 1 before 0. Cluster 1 is empty."""
    result = Clusters(
        owner_n=torch.tensor([0, 0, 0, 2, 2], device=device),
        centres_BD=torch.zeros(3, 1, device=device),
        squares_n=torch.tensor([0.5, 0.4999995, 0.7, 0.1, 0.09], device=device).square(),
        inertia=0.0,
    )
    order = torch.tensor([3, 4, 1, 2, 0], device=device)
    assert [rows.tolist() for rows in grouped(result, order)] == [[1, 0, 2], [], [4, 3]]
    flipped = torch.tensor([3, 4, 0, 2, 1], device=device)
    assert grouped(result, flipped)[0].tolist() == [0, 1, 2]


def test_of_two_members_the_better_stands_for_them_whatever_rounding_says(device):
    """Pairs are equally far from their mean: in float32 about a third of them are not, to the bit."""
    rows = torch.nn.functional.normalize(mixture(400, D=40), dim=1).to(device)
    result = kmeans(rows, torch.arange(400, device=device), 200, 0)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0)).to(device)
    ranks = order.argsort()
    pairs = [rows for rows in grouped(result, order) if len(rows) == 2]
    assert len(pairs) > 20
    assert all(ranks[first] < ranks[second] for first, second in pairs)
