import torch

from alfamix_core.acquisition.sketch import sketch


def test_rows_that_vary_in_few_directions_keep_their_distances(device):
    random = torch.Generator().manual_seed(0)
    rows = (torch.randn(300, 5, generator=random) @ torch.randn(5, 40, generator=random) + 7).to(device)
    narrow = sketch(rows, torch.arange(300, device=device), 5, torch.Generator().manual_seed(1))
    assert narrow.shape == (300, 5)
    wide, narrow = (torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") for x in (rows, narrow))
    torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-4)


def test_it_keeps_about_as_much_of_the_variance_as_the_leading_directions(device):
    random = torch.Generator().manual_seed(2)
    rows = (torch.randn(500, 60, generator=random) * 0.9 ** torch.arange(60)).to(device)
    narrow = sketch(rows, torch.arange(500, device=device), 10, torch.Generator().manual_seed(3))
    values = torch.linalg.svdvals((rows - rows.mean(dim=0)).double())
    assert float(narrow.double().square().sum()) > 0.97 * float(values[:10].square().sum())
