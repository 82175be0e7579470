import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition.optimal_design import Design, forward_backward, information
from alfamix_core.errors import InputError


def problem(seed, n, D, ridge=1.0, dtype=torch.float64):
    """Rows, weights, the pool's information and the information that is known."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, D, generator=random, dtype=torch.float64).to(dtype)
    weights = torch.rand(n, generator=random, dtype=torch.float64) / 4
    before = torch.randn(3, D, generator=random, dtype=torch.float64)
    known = before.T @ before / 10 + ridge * torch.eye(D, dtype=torch.float64)
    return rows, weights, information(rows, weights) / n, known


def two_rows(row, p):
    """What a sample of a binary model adds to the information: one gradient for each answer it may get."""
    gradients = torch.stack([p.sqrt() * (1 - p) * row, -(1 - p).sqrt() * p * row])
    return gradients.T @ gradients


def by_the_definition(rows, top, pool, known, count):
    """Forward, then backward, with an inverse of the whole matrix for each row at each step."""
    terms = [two_rows(row, p) for row, p in zip(rows, top, strict=True)]

    def left(chosen):
        total = known + sum((terms[row] for row in chosen), torch.zeros_like(known))
        return float(torch.trace(pool @ torch.linalg.inv(total)))

    picks = []
    for _ in range(min(2 * count, len(rows))):
        picks.append(min((row for row in range(len(rows)) if row not in picks), key=lambda row: left([*picks, row])))
    while len(picks) > count:
        picks.remove(min(picks, key=lambda row: left([other for other in picks if other != row])))
    return picks


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 5), st.integers(1, 6), st.floats(0.01, 10))
def test_the_picks_are_those_of_the_definition(seed, n, D, count, ridge):
    rows, _, _, known = problem(seed, n, D, ridge)
    top = 0.5 + torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 2
    weights = top * (1 - top)
    pool = information(rows, weights)
    expected = by_the_definition(rows, top, pool, known, min(count, n))
    assert forward_backward(rows, weights, pool, known, min(count, n)) == expected


def test_two_rows_a_sample_are_one_with_weight_p_times_one_minus_p():
    row, p = torch.tensor([3.0, -1.0], dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)
    torch.testing.assert_close(two_rows(row, p), 0.09 * torch.outer(row, row))


def test_one_dimension_by_hand():
    """M = 1, F = 1. A row x of weight w leaves 1 / (1 + w x²): x = 2, w = 1/4 gains 1/2; x = 1, w = 1/4 gains 1/5.

    x = 4, w = 1/16 gains 1/2 as well, and comes after 2. Dropping one of 2 and 4 (M = 3) leaves 1/2 in place of 1/3.
    """
    rows, one = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    weights = torch.tensor([1 / 4, 1 / 4, 1 / 16], dtype=torch.float64)
    design = Design.of(rows, weights, one, one)
    assert design.gains().tolist() == pytest.approx([1 / 5, 1 / 2, 1 / 2])
    design.change(1, 1)
    assert design.gains().tolist()[2] == pytest.approx(1 / 2 - 1 / 3)
    both = Design.of(rows[1:], weights[1:], one, 3 * one)
    assert both.losses().tolist() == pytest.approx([1 / 2 - 1 / 3] * 2)
    assert forward_backward(rows, weights, one, one, 1) == [2]
    assert forward_backward(rows, weights, one, one, 3) == [1, 2, 0]


def test_what_changes_keep_is_what_a_new_start_finds(device):
    rows, weights, pool, known = (x.to(device) for x in problem(0, 300, 12))
    design = Design.of(rows, weights, pool, known)
    for row, sign in ((5, 1), (200, 1), (7, 1), (5, -1), (8, 1)):
        design.change(row, sign)
        known = known + sign * weights[row] * torch.outer(rows[row], rows[row])
    fresh = Design.of(rows, weights, pool, known)
    for name in ("inverse_DD", "spans_n", "reaches_n"):
        torch.testing.assert_close(getattr(design, name), getattr(fresh, name), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_float32_give_the_picks_of_float64(seed):
    rows, weights, pool, known = problem(seed, 2_000, 32, dtype=torch.float32)
    rows = torch.nn.functional.normalize(rows, dim=1)
    expected = forward_backward(rows.double(), weights, pool, known, 60)
    assert forward_backward(rows, weights, pool, known, 60) == expected


def test_equal_rows_go_by_their_place():
    rows, weights, pool, known = problem(0, 5, 4, dtype=torch.float32)
    rows, weights = rows.repeat(30, 1), weights.repeat(30)
    picks = forward_backward(rows, weights, pool, known, 40, ahead=1)
    for first in range(5):
        copies = [pick // 5 for pick in picks if pick % 5 == first]
        assert copies == list(range(len(copies)))


def test_no_weight_no_gain_and_still_as_many_rows(device):
    rows, weights, pool, known = (x.to(device) for x in problem(0, 6, 3))
    assert forward_backward(rows, 0 * weights, pool, known, 6) == list(range(6))
    assert len(set(forward_backward(rows, 0 * weights, pool, known, 2))) == 2


def left(pool, known, rows, weights, chosen):
    """tr(F M⁻¹) with the chosen rows in M: no formula of a gain, no update."""
    chosen = list(chosen)
    total = known + (rows[chosen] * weights[chosen, None]).T @ rows[chosen]
    return float(torch.trace(torch.linalg.solve(total, pool)))


def by_brute_force(rows, weights, pool, known, count):
    picks = []
    for _ in range(2 * count):
        others = [row for row in range(len(rows)) if row not in picks]
        picks.append(min(others, key=lambda row: left(pool, known, rows, weights, [*picks, row])))
    while len(picks) > count:
        picks.remove(
            min(picks, key=lambda row: left(pool, known, rows, weights, [other for other in picks if other != row]))
        )
    return picks


@pytest.mark.parametrize("ridge", [1e8, 1.0, 0.3, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize(("D", "count"), [(8, 6), (16, 4)])
def test_float32_rows_give_the_picks_of_brute_force_whatever_the_ridge(ridge, D, count):
    """Four labels span no space of 8 or 16 features: what the ridge alone holds is large, and is gone when spanned."""
    random = torch.Generator().manual_seed(D)
    rows = torch.nn.functional.normalize(torch.randn(36, D, generator=random), dim=1)
    weights = torch.rand(36, generator=random, dtype=torch.float64) / 4
    known = information(rows[:4], weights[:4]) / 4 + ridge * torch.eye(D, dtype=torch.float64)
    pool = information(rows, weights) / 36
    picks = forward_backward(rows, weights, pool, known, count)
    expected = by_brute_force(rows.double(), weights, pool, known, count)
    if ridge > 1e6:  # all rows are as good as each other to the last digits
        picks, expected = (left(pool, known, rows.double(), weights, chosen) for chosen in (picks, expected))
        assert picks == pytest.approx(expected, rel=1e-12)
    else:
        assert picks == expected


def test_a_ridge_that_rounding_hides_is_refused():
    rows = 1e12 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    weights = torch.full((20,), 0.25, dtype=torch.float64)
    known = information(rows[:2], weights[:2]) + 1e-6 * torch.eye(6, dtype=torch.float64)
    with pytest.raises(InputError, match=r"^ridge: must be at least 1e-12 times the information"):
        forward_backward(rows, weights, information(rows, weights), known, 3)
