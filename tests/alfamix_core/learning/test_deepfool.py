import math

import pytest
import torch

from alfamix_core.errors import InputError
from alfamix_core.learning import deepfool
from alfamix_core.learning.deepfool import deepfool_norms

LOWEST = torch.finfo(torch.float32).min


def linear(weight, bias=None):
    weight = torch.tensor(weight, dtype=torch.float64)
    bias = torch.zeros(len(weight)) if bias is None else torch.tensor(bias)
    return lambda inputs: inputs.to(torch.float64) @ weight.T + bias.to(torch.float64)


def test_three_linear_classes_by_hand():
    """From (2, 1) the nearest boundary is that to (0, 1), at 1/√2; to (-1, 0) it is 4/2."""
    found = deepfool_norms(linear([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), torch.tensor([[2.0, 1.0]]))
    assert found.tolist() == pytest.approx([1 / math.sqrt(2)])


def test_a_linear_model_is_left_in_one_step(monkeypatch):
    """Without overshoot a step ends on the boundary, and 40 % would not have flipped after 50."""
    random = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(5, 7, generator=random).double(), torch.randn(300, 7, generator=random).double()
    logits = inputs @ weight.T
    monkeypatch.setattr(deepfool, "_ITERATIONS", 1)
    found = deepfool_norms(lambda x: x @ weight.T, inputs)
    top = logits.argmax(dim=1)
    gaps = logits.gather(1, top[:, None]) - logits
    lengths = (weight[top][:, None, :] - weight).norm(dim=2)
    expected = torch.where(gaps > 0, gaps / lengths, torch.inf).amin(dim=1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)


def test_the_nearest_class_and_not_the_last_is_taken():
    """The released code keeps the last class: here the far one."""
    found = deepfool_norms(linear([[1.0, 0.0], [0.0, 1.0], [0.0, 0.1]]), torch.tensor([[2.0, 1.9]]))
    assert found.tolist() == pytest.approx([0.1 / math.sqrt(2)], rel=1e-5)


def test_only_the_most_likely_classes_are_looked_at():
    """From (2, -20) the third class is the nearest, by its steep slope, and the least likely."""
    model, inputs = linear([[1.0, 0.0], [0.0, 0.1], [-100.0, 0.0]], [0.0, -100.0, 0.0]), torch.tensor([[2.0, -20.0]])
    assert deepfool_norms(model, inputs, classes=3).item() == pytest.approx(2, rel=1e-5)
    assert deepfool_norms(model, inputs, classes=2).item() == pytest.approx(104 / math.sqrt(1.01), rel=1e-5)


def test_without_a_slope_there_is_no_way():
    assert deepfool_norms(linear([[0.0], [0.0]], [1.0, 0.0]), torch.ones(2, 1)).tolist() == [LOWEST, LOWEST]


def test_what_cannot_be_left_tells_how_far_it_went(monkeypatch):
    """One class wins by at least 1 everywhere, though its lead has a slope."""

    def forward(inputs):
        return torch.cat([(1 + inputs.square()).sqrt(), torch.zeros_like(inputs)], dim=1)

    monkeypatch.setattr(deepfool, "_ITERATIONS", 3)
    found = deepfool_norms(forward, torch.tensor([[1.0], [2.0], [0.0]]))
    assert (found[:2] < 0).all()
    assert (found[:2] > LOWEST).all()
    assert found[2] == LOWEST


def test_a_way_without_end_is_a_number():
    def forward(inputs):
        return torch.cat([1 + (-inputs).exp(), torch.zeros_like(inputs)], dim=1)

    found = deepfool_norms(forward, torch.tensor([[0.0], [1.0], [30.0]]))
    assert found.isfinite().all()
    assert (found < 0).all()


def test_a_tie_is_on_the_boundary():
    assert deepfool_norms(linear([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0]])).tolist() == [0.0]


def curved(inputs):
    """Three classes with curved boundaries."""
    x, y = inputs.to(torch.float64).unbind(dim=1)
    return torch.stack([x.sin() + y, (x * y).tanh(), x.square() / 3 - y], dim=1)


def by_row(x, classes=3):
    """DeepFool of one row, as in the paper."""
    top = int(curved(x[None])[0].argmax())
    r = torch.zeros_like(x)
    for _ in range(50):
        leaf = (x + 1.02 * r).requires_grad_()
        logits = curved(leaf[None])[0]
        if int(logits.argmax()) != top:
            return float(r.norm())
        steps = []
        for k in range(classes):
            if k != top:
                (w,) = torch.autograd.grad(logits[k] - logits[top], leaf, retain_graph=True)
                steps.append((float((logits[k] - logits[top]).detach().abs() / w.norm()), w / w.norm()))
        distance, way = min(steps, key=lambda step: step[0])
        r = r + distance * way
    return -float(r.norm())


def test_a_batch_is_row_by_row_the_loop():
    inputs = 2 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).double()
    found = deepfool_norms(curved, inputs)
    assert found.tolist() == pytest.approx([by_row(x) for x in inputs], rel=1e-4)


def test_neighbours_do_not_show():
    inputs = 2 * torch.randn(60, 2, generator=torch.Generator().manual_seed(1)).double()
    wanted = torch.arange(60) % 2 == 0
    found = deepfool_norms(curved, inputs, wanted_b=wanted)
    assert torch.equal(found[wanted], deepfool_norms(curved, inputs)[wanted])


def test_one_class_to_look_at_is_refused():
    with pytest.raises(InputError, match="must consider 2 classes or more, not 1"):
        deepfool_norms(curved, torch.zeros(1, 2), classes=1)
