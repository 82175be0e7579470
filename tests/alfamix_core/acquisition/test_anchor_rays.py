import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition.anchor_rays import critical_caps, steps
from alfamix_core.acquisition.anchors import class_means
from alfamix_core.acquisition.schedule import CAPS
from alfamix_core.acquisition.types import LinearHead

INF = math.inf


def test_the_bounded_step_by_hand(device):
    """D = (3, -4), g = (0.6, 0.8): d ⊙ g = (1.8, -3.2), its norm √13.48; α ⊙ d = (5.4, 12.8) / √13.48."""
    row, anchor = torch.zeros(1, 2, dtype=torch.float64, device=device), torch.tensor([3.0, -4.0], device=device)
    direction = torch.tensor([[0.6, 0.8]], dtype=torch.float64, device=device)
    result = steps(row, anchor.double(), direction, "bounded")[0].tolist()
    assert result == pytest.approx([5.4 / math.sqrt(13.48), 12.8 / math.sqrt(13.48)])
    still = steps(row, anchor.double() * 0, direction, "bounded")
    assert still.tolist() == [[0.0, 0.0]]


def test_the_released_step_leaves_out_equal_coordinates_by_hand(device):
    """D = (0, 4): the step 4 g without its first coordinate."""
    row, anchor = torch.tensor([[3.0, 0.0]], device=device), torch.tensor([3.0, 4.0], device=device)
    result = steps(row, anchor, torch.tensor([[0.6, 0.8]], device=device), "released")[0].tolist()
    assert result == pytest.approx([0.0, 3.2])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_no_ratios_within_the_bound_grow_the_loss_faster(seed, D):
    """The first-order growth of the bounded step is the largest of 200 ratios of norm 1, and ‖d ⊙ g‖."""
    random = torch.Generator().manual_seed(seed)
    row, anchor = torch.randn(1, D, generator=random).double(), torch.randn(D, generator=random).double()
    direction = torch.nn.functional.normalize(torch.randn(1, D, generator=random).double(), dim=1)
    growth = float((steps(row, anchor, direction, "bounded") * direction).sum())
    assert growth == pytest.approx(float(((anchor - row) * direction).norm()))
    ratios = torch.nn.functional.normalize(torch.randn(200, D, generator=random).double(), dim=1)
    assert growth >= float((ratios * (anchor - row) * direction).sum(dim=1).max())


def released_by_loop(rows, anchors, head, caps):
    """The released code, a class and a cap at a time, in float64: α is formed, and divided by d + 1e-8."""
    rows = rows.double()
    leaf = rows.clone().requires_grad_()
    logits = head(leaf)
    predicted = logits.argmax(dim=1)
    loss = torch.nn.functional.cross_entropy(logits, predicted, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    first = torch.full((len(rows),), INF, dtype=torch.float64, device=rows.device)
    for cap in reversed(caps):
        bound = cap / math.sqrt(rows.shape[1])
        for anchor in anchors.double():
            towards = anchor - rows
            alpha = bound * towards.norm(dim=1, keepdim=True) * gradient / gradient.norm(dim=1, keepdim=True)
            alpha = alpha / (towards + 1e-8)
            mixed = (1 - alpha) * rows + alpha * anchor
            first[head(mixed).argmax(dim=1) != predicted] = cap
    return first


def relu_problem(make_task, build, seed):
    """Features after a ReLU: a third of the coordinates are 0, those of one anchor partly, too."""
    task = make_task(N=150, D=16, K=5, L=12, seed=seed)
    labelled = task.labelled.embeddings_LD.cpu().relu()
    labels = task.labelled.labels_L.cpu()
    labelled[labels == labels[0], :6] = 0
    return build(task.pool.embeddings_nD.cpu().relu(), labelled, labels, task.head)


@pytest.mark.on_real_devices
@pytest.mark.parametrize("seed", range(8))
def test_candidates_are_those_of_the_released_code_where_its_arithmetic_holds(make_task, build, seed):
    task = relu_problem(make_task, build, seed)
    anchors = class_means(task.labelled).means_CD
    rows = task.pool.embeddings_nD
    double = LinearHead(task.head.weight_KD.double(), task.head.bias_K.double())
    gaps = double(rows.double()).topk(2, dim=1).values.diff(dim=1)[:, 0].abs()
    right = gaps < 16
    looped = released_by_loop(rows, anchors, double, CAPS)[right]
    result = critical_caps(rows, anchors, task.head, CAPS, "released")[right]
    for cap in CAPS:
        assert torch.equal(result < cap, looped <= cap)
    ours = critical_caps(rows, anchors, lambda z: double(z.double()), CAPS, "released")[right]
    assert torch.equal(ours, looped)


@pytest.mark.on_real_devices
@pytest.mark.parametrize("seed", range(4))
def test_the_bounded_caps_of_a_linear_head_lie_where_the_grid_sees_the_flip(make_task, seed):
    task = make_task(N=100, D=6, K=4, seed=seed)
    anchors, rows = class_means(task.labelled).means_CD, task.pool.embeddings_nD.double()
    double = LinearHead(task.head.weight_KD.double(), task.head.bias_K.double())
    caps = [step / 40 for step in range(1, 81)]
    exact = critical_caps(rows, anchors, double, caps, "bounded")
    grid = critical_caps(rows, anchors, lambda z: double(z), caps, "bounded")
    expected = torch.full_like(exact, INF)
    for cap in reversed(caps):
        expected[exact < cap] = cap
    assert torch.equal(expected, grid)


@pytest.mark.on_real_devices
@pytest.mark.parametrize("ray", ["bounded", "released"])
def test_bits_do_not_depend_on_the_rows_beside(make_task, ray):
    task = make_task(N=100, D=13, K=10)
    anchors, rows = class_means(task.labelled).means_CD, task.pool.embeddings_nD
    whole = critical_caps(rows, anchors, task.head, CAPS, ray)
    parts = [critical_caps(block, anchors, task.head, CAPS, ray) for block in torch.split(rows, 7)]
    assert torch.equal(torch.cat(parts), whole)
