import pytest

from alfamix_core.errors import InputError
from alfamix_core.project import layout


def test_keys_by_hand():
    assert layout.manifest("a") == "drops/a/manifest.jsonl"
    assert layout.labels("b") == "labels/b.jsonl"
    assert layout.round_file(12) == "rounds/000012/round.json"
    assert layout.objects(12) == "rounds/000012/objects/"
    assert layout.model("ab12") == "models/ab12/"
    assert layout.failure(12, "embed", "3") == "rounds/000012/run/failures/embed-3.json"
    assert layout.failure(12, "train", "") == "rounds/000012/run/failures/train.json"
    assert layout.early_failure("run-1") == "failures/run-1.json"


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "-a", "a b", "ä", "a" * 129, "a\n"])
def test_what_cannot_name_a_drop_or_a_batch(text):
    for key in (layout.drop, layout.labels):
        with pytest.raises(InputError, match="must be letters, digits"):
            key(text)
