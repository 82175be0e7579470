import pytest
import torch

from alfamix_core.acquisition.blocks import BLOCK_ROWS, CUDA_BLOCK_ROWS, block_rows, map_rows, products


@pytest.mark.parametrize("n", [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 3 * BLOCK_ROWS + 5])
def test_every_block_is_full_and_every_row_comes_back(device, n):
    seen = []

    def double(block):
        seen.append(len(block))
        return 2 * block[:, 0]

    rows = torch.arange(n, dtype=torch.float32, device=device)[:, None]
    assert map_rows(double, rows).tolist() == [2.0 * i for i in range(n)]
    assert set(seen) == {block_rows(torch.device(device))}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("D", [1, 7, 64, 512])
def test_a_product_does_not_depend_on_where_the_pool_is_cut(device, D, dtype):
    """With a plain ``@``, 10 columns and D = 64 every second row changes its last bits."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(700, D, generator=random, dtype=dtype).to(device)
    for X in (1, 2, 5, 10, 16, 27, 100):
        kernel = torch.randn(D, X, generator=random, dtype=dtype).to(device)

        def compute(block, kernel=kernel):
            return products(block, kernel)

        whole = map_rows(compute, rows)
        torch.testing.assert_close(whole, rows @ kernel, rtol=1e-4, atol=1e-4)
        cut = torch.cat([map_rows(compute, part) for part in rows.split(333)])
        assert torch.equal(whole, cut), X


def test_a_block_is_at_least_1024_rows_and_a_whole_number_of_tiles():
    assert BLOCK_ROWS >= 1024
    assert BLOCK_ROWS % 48 == 0
    assert CUDA_BLOCK_ROWS % BLOCK_ROWS == 0, "the score stage reads whole blocks on every device"
