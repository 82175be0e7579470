from alfamix_core.records.round import Counts, folder, number_of


def test_a_round_is_named_by_six_digits_and_read_back_from_folder_and_key():
    assert folder(12) == "000012"
    assert number_of("000012") == number_of("000012-4be81f0c22aa") == 12


def test_labelled_counts_every_split():
    assert Counts(samples=20, pool=1, train=2, val=3, test=4, audit=5).labelled == 14
