import torch

from alfamix_core.acquisition.anchors import class_means
from alfamix_core.acquisition.types import Labelled


def test_anchors_by_hand(device):
    """Class 2 has (1, 0) and (3, 2): mean (2, 1); class 0 has (6, 6); class 1 has no label and no anchor."""
    embeddings = torch.tensor([[1.0, 0.0], [6.0, 6.0], [3.0, 2.0]], device=device)
    anchors = class_means(
        Labelled(embeddings, torch.zeros(3, 3, device=device), torch.tensor([2, 0, 2], device=device))
    )
    assert anchors.classes_C.tolist() == [0, 2]
    assert anchors.means_CD.tolist() == [[6.0, 6.0], [2.0, 1.0]]
    # a GPU multiplies by the reciprocal
    torch.testing.assert_close(
        anchors.overall_D.cpu(), torch.tensor([10 / 3, 8 / 3], dtype=torch.float64), rtol=1e-15, atol=0
    )


def test_means_of_half_precision_are_taken_in_double(device):
    """2048 + 1 is 2048 in float16: summed there, the mean of 2048 ones would stay right and that of 4096 be 1/2."""
    anchors = class_means(
        Labelled(
            torch.ones(4096, 1, device=device).half(),
            torch.zeros(4096, 2, device=device),
            torch.zeros(4096, dtype=torch.int64, device=device),
        )
    )
    assert anchors.means_CD.tolist() == [[1.0]]
    assert anchors.means_CD.dtype == torch.float64
