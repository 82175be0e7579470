import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition.agglomerative import average_linkage, clusters, cut, distances


def rows(n, D=5, seed=0):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same_partition(one, other):
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


def nearest_pair_loop(points, count):
    """The obvious way: look at all pairs of clusters, merge the nearest, again and again."""
    groups = [[row] for row in range(len(points))]
    pairs = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    while len(groups) > count:
        means = {(i, j): float(pairs[groups[i]][:, groups[j]].mean()) for j in range(len(groups)) for i in range(j)}
        i, j = min(means, key=means.__getitem__)
        groups[i] += groups.pop(j)
    return [next(g for g, members in enumerate(groups) if row in members) for row in range(len(points))]


def test_five_points_by_hand(device):
    """0, 1, 4, 6, 20: merge (0, 1) at 1, (4, 6) at 2, the two at (4 + 6 + 3 + 5) / 4, and 20 at their mean distance."""
    line = torch.tensor([[0.0], [1.0], [4.0], [6.0], [20.0]], device=device)
    merges, heights = average_linkage(distances(line))
    assert heights.tolist() == pytest.approx([1, 2, 4.5, 17.25])
    assert merges[:2].tolist() == [[0, 1], [2, 3]]
    assert [cut(merges, 5, count).tolist() for count in (5, 3, 2, 1)] == [
        [0, 1, 2, 3, 4],
        [0, 0, 1, 1, 2],
        [0, 0, 0, 0, 1],
        [0] * 5,
    ]


@pytest.mark.on_real_devices
@pytest.mark.parametrize("n", [2, 3, 40, 1500])
def test_the_tree_is_that_of_scipy(device, n):
    points = rows(n)
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy", reason="scipy is not installed")
    distance = pytest.importorskip("scipy.spatial.distance", reason="scipy is not installed")
    reference = hierarchy.linkage(distance.pdist(points.numpy()), "average")
    merges, heights = average_linkage(distances(points.to(device)))
    torch.testing.assert_close(heights, torch.from_numpy(reference[:, 2].copy()))
    for count in {1, 2, -(-n // 10), n - 1, n}:
        expected = hierarchy.cut_tree(reference, n_clusters=count)[:, 0].tolist()
        assert same_partition(cut(merges, n, count).tolist(), expected)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 14), seed=st.integers(0, 10_000), data=st.data())
def test_it_equals_the_loop_over_all_pairs(n, seed, data):
    points, count = rows(n, D=3, seed=seed), data.draw(st.integers(1, n))
    assert same_partition(clusters(points, count).tolist(), nearest_pair_loop(points, count))


@settings(max_examples=50, deadline=None)
@given(cells=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40), data=st.data())
def test_with_ties_and_copies_there_are_still_as_many_clusters_as_asked(cells, data):
    count = data.draw(st.integers(1, len(cells)))
    result = clusters(torch.tensor(cells, dtype=torch.float32), count).tolist()
    assert set(result) == set(range(count))
    firsts = [result.index(cluster) for cluster in range(count)]
    assert firsts == sorted(firsts)
    if count <= len(set(cells)):
        assert all(len({result[i] for i, c in enumerate(cells) if c == cell}) == 1 for cell in set(cells))


def test_distances_of_copies_are_zero_and_symmetric_to_the_bit(device):
    far = (rows(1200, D=7).repeat(2, 1) + 1000).to(device)
    result = distances(far)
    assert torch.equal(result, result.T)
    assert (result[torch.arange(1200), torch.arange(1200) + 1200] == 0).all()
    torch.testing.assert_close(result[0, 1:5].cpu(), (far[0] - far[1:5]).norm(dim=1).cpu(), rtol=1e-9, atol=0)


def test_equal_rows_do_not_loop_forever(device):
    assert clusters(torch.zeros(300, 4, device=device), 30).bincount().min() >= 1
