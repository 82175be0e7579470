import pytest
import torch

from alfamix_core.evaluation.calibration import fit_temperature
from alfamix_core.evaluation.metrics import measure


def test_a_model_that_is_always_sure_and_right_two_times_in_three_by_hand():
    """Logits (12, 0) for all; 2 of 3 right: the confidence is 2/3 at 12 / ln 2 = 17.3."""
    logits = torch.tensor([[12.0, 0.0]]).repeat(300, 1)
    labels = torch.tensor([0, 0, 1]).repeat(100)
    assert fit_temperature(logits, labels) == 17.3


def test_a_model_that_is_right_as_often_as_it_says_keeps_its_temperature():
    """Logits (ln 3, 0): 3/4, and 3 of 4 right."""
    logits = torch.tensor([[3.0, 1.0]]).log().repeat(400, 1)
    assert fit_temperature(logits, torch.tensor([0, 0, 0, 1]).repeat(100)) == 1.0


def test_without_a_sample_it_is_one():
    assert fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == 1.0


@pytest.mark.parametrize("truth", [2.0, 5.0])
def test_labels_drawn_at_a_temperature_give_it_back(truth):
    random = torch.Generator().manual_seed(0)
    logits = 3 * truth * torch.randn(20_000, 10, generator=random)
    labels = torch.multinomial((logits / truth).softmax(dim=1), 1, generator=random)[:, 0]
    assert fit_temperature(logits, labels) == pytest.approx(truth, rel=0.05)


def test_no_temperature_of_the_grid_has_a_smaller_error():
    random = torch.Generator().manual_seed(1)
    logits, labels = 8 * torch.randn(500, 5, generator=random), torch.randint(5, (500,), generator=random)

    def error(temperature):
        return measure(logits.double() / temperature, labels).expected_calibration_error

    errors = [error(step / 10) for step in range(10, 201)]
    assert error(fit_temperature(logits, labels)) == pytest.approx(min(errors), abs=1e-12)
