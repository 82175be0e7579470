from alfamix_core.project.once import write_once


def test_who_writes_first_is_right_and_who_comes_second_is_told(place):
    assert write_once(place, "rounds/1/queries.jsonl", b"first") == b"first"
    assert write_once(place, "rounds/1/queries.jsonl", b"second") == b"first"
    assert place.read("rounds/1/queries.jsonl").data == b"first"
