import math

import pytest
import torch

from alfamix_core.acquisition import noise
from alfamix_core.acquisition.anchors import class_means
from alfamix_core.acquisition.drawn_mixing import drawn_flips, first_ratios
from alfamix_core.acquisition.schedule import DRAWN_CAPS as CAPS


def by_loop(task, seed, learned, caps):
    """The released code's loop, sample by sample, with plain autograd, its last step included."""
    anchors = class_means(task.labelled).means_CD.float()
    first, smallest = [], []
    for row, position in zip(task.pool.embeddings_nD, task.pool.positions_n, strict=True):
        predicted = int(task.head(row[None]).argmax())
        result = (math.inf, math.inf)
        for number, cap in enumerate(caps):
            for index, anchor in enumerate(anchors):
                key = noise.fold(seed, noise.MIXING_RATIOS, number, index)
                alpha = first_ratios(key, position[None], len(row), cap)[0]
                for test in range(5 if learned else 1):
                    alpha = alpha.detach().requires_grad_()
                    mixed = (1 - alpha) * row + alpha * anchor
                    logits = task.head(mixed[None])
                    if int(logits.argmax()) != predicted:
                        result = min(result, (cap, float(alpha.detach().norm())))
                    loss = (
                        -torch.nn.functional.cross_entropy(logits, torch.tensor([predicted], device=row.device))
                        + 0.01 * alpha.norm()
                    )
                    (slope,) = torch.autograd.grad(loss, alpha)
                    rate = 0.1 if test < 4 else 0.01
                    alpha = (alpha.detach() - rate * slope / (slope.abs() + 1e-8)).clamp(1e-8, cap)
            if result[0] < math.inf:
                break
        first.append(result[0])
        smallest.append(result[1])
    return first, smallest


@pytest.mark.on_real_devices  # autograd
@pytest.mark.parametrize("learned", [False, True])
def test_the_caps_are_those_of_the_loop(make_task, learned):
    task = make_task(N=40, D=6, K=3)
    caps = CAPS[3::7]
    anchors = class_means(task.labelled).means_CD.float()
    pool = task.pool
    result = drawn_flips(pool.embeddings_nD, pool.positions_n, anchors, task.head, caps, 3, learned=learned)
    first, smallest = by_loop(task, 3, learned, caps)
    assert result.caps_n.tolist() == first
    assert result.norms_n.tolist() == pytest.approx(smallest, rel=1e-4)
    assert len(set(first)) > 2


def test_learned_ratios_flip_no_later_and_more(make_task):
    task = make_task(N=100, D=6, K=3)
    anchors, pool = class_means(task.labelled).means_CD.float(), task.pool
    drawn, learned = (
        drawn_flips(pool.embeddings_nD, pool.positions_n, anchors, task.head, CAPS, 3, learned=learned)
        for learned in (False, True)
    )
    # the first test of learned ratios is the one of drawn ratios
    assert (learned.caps_n <= drawn.caps_n).all()
    assert (learned.caps_n < drawn.caps_n).any()


@pytest.mark.on_real_devices  # autograd
@pytest.mark.parametrize("learned", [False, True])
def test_a_head_that_is_not_known_to_be_linear_gives_the_same(make_task, learned):
    task = make_task(N=60, D=6, K=3)
    anchors, pool = class_means(task.labelled).means_CD.float(), task.pool
    one, other = (
        drawn_flips(pool.embeddings_nD, pool.positions_n, anchors, head, CAPS[::4], 3, learned=learned)
        for head in (task.head, lambda rows: task.head(rows))
    )
    assert torch.equal(one.caps_n, other.caps_n)
    torch.testing.assert_close(one.norms_n, other.norms_n, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.divergences_n, other.divergences_n, rtol=1e-3, atol=1e-4)


def test_what_does_not_flip_has_no_divergence(make_task):
    task = make_task(N=100, D=6, K=3)
    anchors, pool = class_means(task.labelled).means_CD.float(), task.pool
    result = drawn_flips(pool.embeddings_nD, pool.positions_n, anchors, task.head, CAPS[4:5], 3, learned=True)
    flipped = result.caps_n < math.inf
    assert 0 < flipped.sum() < 100
    assert (result.divergences_n[flipped] > 0).all()
    assert (result.divergences_n[~flipped] == 0).all()
    assert torch.equal(result.norms_n < math.inf, flipped)


@pytest.mark.on_real_devices  # autograd
@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_bits_do_not_depend_on_the_rows_beside(make_task, dtype, learned, linear):
    """The same positions alone, in blocks of any size, and with every second row left out: 1,700 rows fill a block."""
    task = make_task(N=1700, D=13, K=10, dtype=dtype)
    anchors, pool = class_means(task.labelled).means_CD.float()[:3], task.pool
    head = task.head if linear else lambda rows: task.head(rows.double()).to(rows.dtype)

    def result(rows):
        part = task.rows(rows)
        flips = drawn_flips(part.embeddings_nD, part.positions_n, anchors, head, CAPS[3::9], 3, learned=learned)
        return torch.stack([flips.caps_n, flips.norms_n.double(), flips.divergences_n.double()])

    whole = result(slice(0, 1700))
    assert 0 < (whole[0] < math.inf).sum() < 1700
    for size in (1699, 800, 301):
        parts = [result(slice(start, start + size)) for start in range(0, 1700, size)]
        assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(result(slice(1697, 1698)), whole[:, 1697:1698])
    half = torch.arange(1, 1700, 2, device=pool.positions_n.device)
    assert torch.equal(result(half), whole[:, half])
