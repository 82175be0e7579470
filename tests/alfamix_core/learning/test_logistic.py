import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from alfamix_core.errors import InputError
from alfamix_core.learning.logistic import fit_head


@pytest.fixture(scope="module")
def digits():
    """300 digits: rows of length 1, and columns of deviation 1, each with the penalty that suits it."""
    raw, labels = load_digits(return_X_y=True)
    raw, labels = raw[:300], labels[:300]
    deviation = raw.std(axis=0)
    standardised = (raw - raw.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return {"l2": raw / np.linalg.norm(raw, axis=1, keepdims=True), "standardised": standardised}, labels


@pytest.mark.parametrize(("kind", "penalty"), [("l2", 1.0), ("standardised", 100.0)])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_optimum_is_that_of_scikit_learn(digits, kind, penalty, balanced):
    rows, labels = digits[0][kind], np.minimum(digits[1], 4)
    head = fit_head(torch.tensor(rows), torch.tensor(labels), 5, penalty=penalty, balanced=balanced)
    twin = LogisticRegression(
        C=1 / penalty, tol=1e-12, solver="newton-cholesky", class_weight="balanced" if balanced else None
    ).fit(rows, labels)
    assert head.is_converged
    assert head.weight_KD.numpy() == pytest.approx(twin.coef_, abs=1e-6)
    # a constant on all biases changes nothing
    ours, theirs = head.bias_K.numpy(), twin.intercept_
    assert ours - ours.mean() == pytest.approx(theirs - theirs.mean(), abs=1e-6)


def test_the_optimum_of_two_classes_is_that_of_scikit_learn(digits):
    """With two classes, scikit-learn has one row w for both: the penalty of w/2 and -w/2 is half of that of w."""
    rows, labels = digits[0]["l2"], (digits[1] > 4).astype(int)
    head = fit_head(torch.tensor(rows), torch.tensor(labels), 2, penalty=1.0)
    twin = LogisticRegression(C=2.0, tol=1e-12, solver="newton-cholesky").fit(rows, labels)
    assert (head.weight_KD[1] - head.weight_KD[0]).numpy() == pytest.approx(twin.coef_[0], abs=1e-6)
    assert float(head.bias_K[1] - head.bias_K[0]) == pytest.approx(twin.intercept_[0], abs=1e-6)


def test_the_gradient_of_the_written_loss_vanishes(digits):
    """The slow twin of the loss, sample by sample and class by class."""
    rows, labels = digits[0]["l2"][:40], digits[1][:40]
    head = fit_head(torch.tensor(rows), torch.tensor(labels), 10, penalty=0.5)
    slope = 0.5 * head.weight_KD.numpy()
    for row, label in zip(rows, labels, strict=True):
        logits = head.weight_KD.numpy() @ row + head.bias_K.numpy()
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        for k in range(10):
            slope[k] += (shares[k] - (k == label)) * row
    assert slope == pytest.approx(np.zeros((10, 64)), abs=1e-5)


def test_the_same_rows_give_the_same_bits(digits):
    rows, labels = torch.tensor(digits[0]["l2"]), torch.tensor(digits[1])
    one, two = (fit_head(rows, labels, 10, penalty=1.0) for _ in range(2))
    assert torch.equal(one.weight_KD, two.weight_KD)
    assert torch.equal(one.bias_K, two.bias_K)


def test_a_class_without_a_sample_is_rarer_than_the_others_and_changes_nothing_for_them(digits):
    rows, labels = torch.tensor(digits[0]["l2"]), torch.tensor(digits[1]).clamp(max=3)
    without = fit_head(rows, labels, 4, penalty=1.0)
    head = fit_head(rows, labels + 1, 6, penalty=1.0)
    assert torch.equal(head.weight_KD[1:5], without.weight_KD)
    logits = rows @ head.weight_KD.T + head.bias_K
    assert not torch.isin(logits.argmax(dim=1), torch.tensor([0, 5])).any()
    assert head.bias_K.isfinite().all()


def test_a_single_class_is_refused(digits):
    with pytest.raises(InputError, match="labels of 2 classes or more, not 1"):
        fit_head(torch.tensor(digits[0]["l2"]), torch.zeros(300, dtype=torch.int64), 10, penalty=1.0)
