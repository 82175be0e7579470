import math

import pytest
import torch

from alfamix_core.acquisition import mixing
from alfamix_core.acquisition.anchors import Anchors
from alfamix_core.acquisition.types import LinearHead
from tests.alfamix_core.acquisition.paper_loop import first_caps_by_loop


@pytest.fixture
def head(device):
    return LinearHead(*(part.to(device, torch.float64) for part in (torch.eye(2), torch.zeros(2))))


@pytest.fixture
def anchors(device):
    means = torch.tensor([[3.0, 0.0], [0.0, 3.0]], dtype=torch.float64, device=device)
    return Anchors(torch.tensor([0, 1], device=device), means, means.mean(dim=0))


@pytest.fixture
def pool(device):
    return torch.tensor([[2.0, 1.0], [1.0, 1.0], [3.0, 0.0], [0.0, 0.5]], dtype=torch.float64, device=device)


def test_two_classes_by_hand(pool, anchors, head):
    """W = I: the gradient of (2, 1) points along (-1, 1)/√2; the farthest anchor is at 2√2; at 0.4 the step is 0.8."""
    predicted, direction = mixing.direction(pool[:1], head)
    assert predicted.tolist() == [0]
    assert direction[0].tolist() == pytest.approx([-1 / math.sqrt(2), 1 / math.sqrt(2)])
    step = mixing.step_lengths(pool[:1], anchors.means_CD[1], 0.4)
    assert step.item() == pytest.approx(0.8)
    assert (pool[0] + step * direction[0]).tolist() == pytest.approx([1.4343, 1.5657], abs=5e-5)


def test_first_caps_by_hand(pool, anchors, head):
    """Critical caps 0.353553, 0, 0.707107 and 0.164397: the next caps of the schedule are 0.4, 0.2, 0.8 and 0.2."""
    assert first_caps_by_loop(pool, anchors.means_CD, head).tolist() == [0.4, 0.2, 0.8, 0.2]


def test_equal_coordinates_keep_their_step(device, head):
    """The released code divides by z*_c - z + 1e-8, here 1e-8 in the first coordinate, and would drop its step."""
    pool, anchor = torch.tensor([[[1.0, 0.9]], [[1.0, 3.0]]], dtype=torch.float64, device=device)
    # the gap of 0.1 closes after 0.0707 along (-1, 1)/√2; the anchor is 2.1 away: critical cap 0.0476
    assert first_caps_by_loop(pool, anchor, head, (0.05,)).tolist() == [0.05]
    # with the first coordinate's step dropped, the second alone would need 0.1 and the cap be 0.0952
    assert first_caps_by_loop(pool, anchor, head, (0.047,)).tolist() == [math.inf]


def test_direction_survives_any_confidence(device):
    """At a gap of 1e5 p_y is 1 in every precision and p - e_y is 0; the direction is still (-1, 1)/√2."""
    head = LinearHead(torch.eye(2, device=device), torch.zeros(2, device=device))
    _, direction = mixing.direction(torch.tensor([[1e5, 0.0]], device=device), head)
    assert direction[0].tolist() == pytest.approx([-1 / math.sqrt(2), 1 / math.sqrt(2)])


def test_direction_of_a_head_without_slope_is_zero(device):
    flat = LinearHead(torch.zeros(2, 2, device=device), torch.tensor([1.0, 0.0], device=device))
    assert mixing.direction(torch.ones(1, 2, device=device), flat)[1].tolist() == [[0.0, 0.0]]


def test_explain_names_the_class_and_the_farthest_anchor(pool, anchors, head):
    result = mixing.explain(pool[0].float(), anchors, head, 0.4)
    assert (result.predicted, result.flips_to, result.anchor) == (0, 1, 1)
    assert result.step == pytest.approx(0.8)
    assert result.distance == pytest.approx(2 * math.sqrt(2))


def test_explain_of_a_sample_that_does_not_flip_says_so(pool, anchors, head):
    result = mixing.explain(pool[2], anchors, head, 0.2)
    assert (result.predicted, result.flips_to, result.anchor) == (0, None, 1)
