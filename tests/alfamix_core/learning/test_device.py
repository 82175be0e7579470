import torch

from alfamix_core.learning import device


def test_the_first_gpu_is_chosen_where_there_is_one():
    chosen = device.choose()
    assert chosen.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device.name(torch.device("cpu")) == "cpu"
