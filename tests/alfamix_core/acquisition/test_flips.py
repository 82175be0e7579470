import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition import mixing
from alfamix_core.acquisition.anchors import class_means
from alfamix_core.acquisition.flips import critical_caps, first_flipping_caps, linear_flips
from alfamix_core.acquisition.schedule import CAPS
from alfamix_core.acquisition.types import Labelled, LinearHead
from tests.alfamix_core.acquisition.paper_loop import first_caps_by_loop

INF = math.inf


def labelled_at(rows, labels, K=2):
    embeddings = torch.tensor(rows)
    return Labelled(embeddings, torch.zeros(len(rows), K), torch.tensor(labels))


def caps_of(pool_nD, labelled, head):
    return critical_caps(pool_nD, linear_flips(labelled, head))


def by_loop(pool_nD, labelled, head):
    """The literal loop in float64, each logit summed by itself so that classes with equal rows have equal bits."""
    weight_KD, bias_K = head.weight_KD.double(), head.bias_K.double()

    def logits(rows_nD):
        return (rows_nD[:, None] * weight_KD).sum(dim=2) + bias_K

    return first_caps_by_loop(pool_nD.double(), class_means(labelled).means_CD, logits)


def assert_same_candidates(pool_nD, labelled, head):
    """At every cap of the schedule the critical caps name the same candidates as the loop over anchors and caps."""
    fast_n, slow_n = caps_of(pool_nD, labelled, head), by_loop(pool_nD, labelled, head)
    assert not fast_n.isnan().any()
    for cap in CAPS:
        assert torch.equal(fast_n < cap, slow_n <= cap), cap


def random_case(N, D, K, C, *, dtype=torch.float32, seed=0, offset=0.0, relu=False):
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    centres_KD = 1.5 * draw(K, D)
    labels_L = torch.cat([torch.arange(C), torch.randint(C, (3 * C,), generator=random)])
    pool_nD = centres_KD[torch.randint(K, (N,), generator=random)] + draw(N, D)
    labelled_LD = centres_KD[labels_L] + draw(len(labels_L), D)
    if relu:
        pool_nD, labelled_LD = pool_nD.relu(), labelled_LD.relu()
    head = LinearHead((centres_KD / D + draw(K, D) / D).to(dtype), (0.1 * draw(K)).to(dtype))
    pool_nD, labelled_LD = (pool_nD + offset).to(dtype), (labelled_LD + offset).to(dtype)
    return pool_nD, Labelled(labelled_LD, torch.zeros(len(labels_L), K, dtype=dtype), labels_L), head


def test_four_samples_by_hand(device):
    """W = I, b = 0, anchors (3, 0) and (0, 3).

    z = (2, 1): q = (-1, 1), t* = 1/√2, R = 2√2, a* = √2 t*/R = 0.353553. (1, 1) is a tie. (3, 0) has t* = 3/√2 and
    R = 3√2. (0, 0.5) has t* = 0.5/√2 and R = √9.25.
    """
    labelled = labelled_at([[3.0, 0.0], [0.0, 3.0]], [0, 1])
    labelled = Labelled(labelled.embeddings_LD.to(device), labelled.logits_LK.to(device), labelled.labels_L.to(device))
    pool = torch.tensor([[2.0, 1.0], [1.0, 1.0], [3.0, 0.0], [0.0, 0.5]], device=device)
    result = caps_of(pool, labelled, LinearHead(torch.eye(2, device=device), torch.zeros(2, device=device)))
    assert result.tolist() == pytest.approx([0.353553, 0.0, 0.707107, 0.164399], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("D", "K", "C"),
    [(2, 2, 2), (3, 5, 5), (16, 10, 10), (16, 10, 4), (32, 40, 20), (40, 100, 100), (8, 3, 1), (1, 2, 2)],
)
def test_random_heads_give_the_candidates_of_the_loop(D, K, C, dtype):
    pool, labelled, head = random_case(600 if K < 100 else 200, D, K, C, dtype=dtype)
    assert_same_candidates(pool, labelled, head)


def test_the_cases_hold_candidates_at_every_cap():
    """Or the comparisons with the loop would compare nothing."""
    pool, labelled, head = random_case(600, 16, 10, 4)
    counts = [int((caps_of(pool, labelled, head) < cap).sum()) for cap in CAPS]
    assert 0 < counts[0] < counts[1] < counts[2] < counts[3] < counts[4] < 600


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [30.0, 1000.0])
def test_saturated_logits_give_the_candidates_of_the_loop(scale, dtype):
    """From a gap of 16 on p_y is 1 in float32, where the released code's ray goes wrong."""
    pool, labelled, head = random_case(600, 16, 10, 10, dtype=dtype)
    head = LinearHead(head.weight_KD * scale, head.bias_K * scale)
    gaps = head(pool).topk(2, dim=1).values
    assert ((gaps[:, 0] - gaps[:, 1]) > 16).float().mean() > 0.1
    assert_same_candidates(pool, labelled, head)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_with_equal_rows_give_the_candidates_of_the_loop(dtype):
    pool, labelled, head = random_case(600, 16, 6, 6, dtype=dtype)
    weight_KD, bias_K = head.weight_KD.clone(), head.bias_K.clone()
    weight_KD[4], bias_K[4] = weight_KD[1], bias_K[1]
    weight_KD[5] = weight_KD[2]
    assert_same_candidates(pool, labelled, LinearHead(weight_KD, bias_K))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_coordinates_after_a_relu_give_the_candidates_of_the_loop(dtype):
    pool, labelled, head = random_case(600, 16, 10, 10, dtype=dtype, relu=True)
    assert (pool == 0).float().mean() > 0.2
    assert_same_candidates(pool, labelled, head)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [10.0, 1000.0])
def test_an_offset_a_thousand_times_the_spread_does_not_drown_the_caps(offset, dtype):
    """Weights share a large component too: about the origin the products and the Gram matrix would cancel."""
    pool, labelled, head = random_case(3000, 16, 10, 10, dtype=dtype, offset=offset)
    head = LinearHead(head.weight_KD + 100, head.bias_K)
    assert_same_candidates(pool, labelled, head)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicate_samples_have_bitwise_equal_caps(device, dtype):
    pool, labelled, head = random_case(50, 16, 10, 10, dtype=dtype)
    labelled = Labelled(labelled.embeddings_LD.to(device), labelled.logits_LK.to(device), labelled.labels_L.to(device))
    head = LinearHead(head.weight_KD.to(device), head.bias_K.to(device))
    result = caps_of(pool.repeat(61, 1).to(device), labelled, head).reshape(61, 50)
    assert torch.equal(result, result[:1].expand(61, 50))


def test_half_precision_is_computed_as_the_float32_of_the_same_numbers(device):
    pool, labelled, head = random_case(100, 16, 10, 10)
    labelled = Labelled(labelled.embeddings_LD.to(device), labelled.logits_LK.to(device), labelled.labels_L.to(device))
    flips = linear_flips(labelled, LinearHead(head.weight_KD.to(device), head.bias_K.to(device)))
    half = pool.half().to(device)
    assert torch.equal(critical_caps(half, flips), critical_caps(half.float(), flips))


def test_zero_gradient_cannot_flip():
    pool, labelled, _ = random_case(20, 4, 3, 3)
    flat = LinearHead(torch.full((3, 4), 0.7), torch.tensor([0.0, 1.0, 0.5]))
    assert caps_of(pool, labelled, flat).tolist() == [INF] * 20
    assert by_loop(pool, labelled, flat).tolist() == [INF] * 20


def test_a_sample_on_the_only_anchor_cannot_flip():
    labelled = labelled_at([[0.3, 0.1]], [1])
    pool = torch.tensor([[0.3, 0.1], [0.3, 0.2]])
    result = caps_of(pool, labelled, LinearHead(torch.eye(2), torch.zeros(2)))
    assert result[0] == INF
    assert result[1] < INF


def test_logits_that_are_exactly_equal_have_cap_zero():
    """A dead ReLU row under a head without bias; the labelled mean is no round number and must not be subtracted."""
    pool, labelled, head = random_case(50, 16, 10, 10, relu=True)
    pool[7] = 0
    result = caps_of(pool, labelled, LinearHead(head.weight_KD, torch.zeros(10)))
    assert result[7] == 0


def test_the_mean_of_all_labelled_samples_is_never_the_farthest_anchor():
    """The paper's anchor of a class without labels: the loop finds the same candidates with and without it."""
    pool, labelled, head = random_case(300, 6, 5, 3, dtype=torch.float64)
    anchors = class_means(labelled)
    with_mean = torch.cat([anchors.means_CD, anchors.overall_D[None]])
    assert torch.equal(first_caps_by_loop(pool, anchors.means_CD, head), first_caps_by_loop(pool, with_mean, head))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 6), st.integers(1, 6))
def test_whole_numbers_full_of_ties_give_the_candidates_of_the_loop(seed, D, K, C):
    """Ties of logits, duplicate classes, samples on anchors.

    Left out is what only rounding decides: exactly on a cap, a rival of equal logit at exactly the same speed, and
    a gradient that is 0, of which the loop normalises the rounding.
    """
    random = torch.Generator().manual_seed(seed)
    pool = torch.randint(-3, 4, (40, D), generator=random).double()
    weight_KD = torch.randint(-2, 3, (K, D), generator=random).double()
    head = LinearHead(weight_KD, torch.randint(-1, 2, (K,), generator=random).double())
    labels_L = torch.randint(min(C, K), (8,), generator=random)
    embeddings_LD = torch.randint(-3, 4, (8, D), generator=random).double()
    labelled = Labelled(embeddings_LD, torch.zeros(8, K), labels_L)
    logits_nK = head(pool)
    predicted_n, direction_nD = mixing.direction(pool, head)
    speed_nK = direction_nD @ weight_KD.T
    speed_nK = speed_nK - speed_nK.gather(1, predicted_n[:, None])
    tied_nK = (logits_nK == logits_nK.amax(dim=1, keepdim=True)) & (speed_nK.abs() < 1e-9)
    equal_KK = (weight_KD[:, None] == weight_KD).all(dim=2)
    others_nK = logits_nK.scatter(1, predicted_n[:, None], -INF).softmax(dim=1)
    flat_n = (others_nK @ weight_KD - weight_KD[predicted_n]).norm(dim=1) < 1e-9
    unclear_n = (tied_nK & ~equal_KK[predicted_n]).any(dim=1) | flat_n
    for pool_nD in (pool, pool.float()):
        fast_n, slow_n = caps_of(pool_nD, labelled, head), by_loop(pool_nD, labelled, head)
        for cap in CAPS:
            clear_n = ~unclear_n & ((fast_n - cap).abs() > 1e-5)
            assert torch.equal((fast_n < cap)[clear_n], (slow_n <= cap)[clear_n])


def mlp(D, K, seed=0):
    random = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in ((D, 32), (32, K)))

    def head(rows_nD):
        return torch.tanh(rows_nD @ first.to(rows_nD) / D**0.5) @ second.to(rows_nD)

    return head


@pytest.mark.parametrize(("D", "K", "C"), [(8, 5, 5), (8, 5, 2), (4, 2, 1)])
def test_a_head_that_is_not_linear_flips_as_in_the_loop(D, K, C):
    pool, labelled, _ = random_case(300, D, K, C, dtype=torch.float64)
    anchors_CD, head = class_means(labelled).means_CD, mlp(D, K)
    slow_n = first_caps_by_loop(pool, anchors_CD, head)
    assert len(slow_n.unique()) >= 4
    assert torch.equal(first_flipping_caps(pool, anchors_CD, head, CAPS), slow_n)


def test_the_farthest_anchor_alone_decides_for_nearly_every_sample():
    pool, labelled, _ = random_case(300, 8, 5, 5, dtype=torch.float64)
    anchors_CD, head = class_means(labelled).means_CD, mlp(8, 5)
    every, farthest = (first_flipping_caps(pool, anchors_CD, head, CAPS, farthest_only=only) for only in (False, True))
    assert (every == farthest).float().mean() > 0.99
    assert (every <= farthest).all()


def test_a_linear_head_given_as_a_function_flips_at_the_next_cap_of_the_schedule():
    pool, labelled, head = random_case(300, 8, 5, 5, dtype=torch.float64)
    exact_n = caps_of(pool, labelled, head)
    caps = torch.tensor([*CAPS, INF], dtype=torch.float64)
    grid_n = first_flipping_caps(pool, class_means(labelled).means_CD, lambda rows_nD: head(rows_nD), CAPS)
    assert torch.equal(grid_n, caps[torch.searchsorted(caps, exact_n, right=True).clamp(max=5)])


def test_flips_of_any_head_do_not_depend_on_where_the_pool_is_cut(device):
    pool, labelled, _ = random_case(400, 8, 5, 5)
    pool, anchors_CD, head = pool.to(device), class_means(labelled).means_CD.to(device), mlp(8, 5)
    whole = first_flipping_caps(pool, anchors_CD, head, CAPS)
    assert torch.equal(
        whole, torch.cat([first_flipping_caps(part, anchors_CD, head, CAPS) for part in pool.split(133)])
    )
    assert len(first_flipping_caps(pool[:0], anchors_CD, head, CAPS)) == 0


@pytest.mark.parametrize("gap", [1.0, 15.0, 16.0, 40.0, 300.0])
def test_a_third_class_is_reached_however_close_two_equal_classes_are_by_hand(device, gap):
    """Classes 0 and 1 share the row (1, 0) and z = (gap / 2, 0), so l = (gap / 2, gap / 2, -gap / 2).

    The only way out leads along w_2 - w_0 = (-2, 0): t* = gap / 2. The anchor at (-1, 0) is gap / 2 + 1 away.
    """
    head = LinearHead(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], device=device), torch.zeros(3, device=device))
    labelled = Labelled(
        torch.tensor([[-1.0, 0.0], [0.0, 0.0]], device=device),
        torch.zeros(2, 3, device=device),
        torch.tensor([0, 1], device=device),
    )
    result = critical_caps(torch.tensor([[gap / 2, 0.0]], device=device), linear_flips(labelled, head))
    assert result.item() == pytest.approx(math.sqrt(2) * (gap / 2) / (gap / 2 + 1))


def test_with_all_rows_equal_nothing_flips(device):
    head = LinearHead(torch.ones(3, 2, device=device), torch.zeros(3, device=device))
    labelled = Labelled(
        torch.eye(2, device=device), torch.zeros(2, 3, device=device), torch.tensor([0, 1], device=device)
    )
    assert critical_caps(torch.eye(2, device=device), linear_flips(labelled, head)).tolist() == [math.inf] * 2
