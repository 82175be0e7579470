"""What a person takes back about samples."""

from datetime import timedelta

import pytest

from alfamix_core.errors import InputError, LockedError
from alfamix_core.project import lock
from alfamix_core.project.inbox.corrections import release, withdraw

HOUR = timedelta(hours=1)


def test_a_repaired_sample_is_released_and_comes_back_when_it_is_bad_again(made_anywhere, noon):
    made = made_anywhere
    made.drop("a", "b", "c")

    made.quarantine(1, "b", "c")
    with pytest.raises(InputError, match='sample "z" is not in quarantine'):
        release(made.store, ["z"], noon)
    assert release(made.store, ["b"], noon) == 1
    assert made.ledger().quarantined() == {"c": 1}
    made.quarantine(2, "b")
    assert made.ledger().quarantined() == {"b": 2, "c": 1}
    assert release(made.store, [], noon) == 2
    assert made.ledger().quarantined() == {}
    assert release(made.store, [], noon) == 0


def test_a_withdrawn_sample_is_in_no_pool_and_no_training_set_and_its_question_is_closed(made_anywhere, noon):
    made = made_anywhere
    made.drop("a", "b", "c", "d", label="cat")
    made.drop("b", "e", "f", "g")
    made.ask(1, "e")
    made.label("1", f="dog")
    uri = made.store.uri_of("files/c.png")
    batch, count = withdraw(made.store, ["b", "", uri, "e", "f", "b"], "no consent", noon, "gone.txt")
    assert (batch.startswith("gone-txt-"), count) == (True, 4)
    ledger = made.ledger()
    assert ledger.withdrawn() == {"b", "c", "e", "f"}
    assert ledger.labelled().read_all()["sample_id"].to_pylist() == ["d"]
    assert (made.pool(), ledger.open_queries()) == (["g"], [])
    counts = ledger.counts()
    assert (counts.samples, counts.withdrawn, counts.train, counts.pool) == (6, 4, 1, 1)
    assert withdraw(made.store, ["b", "c"], "", noon, "again.txt") == ("", 0)
    with pytest.raises(InputError, match=r'^gone.txt line 2: "z" is neither the id nor the uri of a sample$'):
        withdraw(made.store, ["d", "z"], "", noon, "gone.txt")


def test_a_withdrawn_sample_that_is_delivered_again_stays_withdrawn(made, noon):
    made.drop("a", "b", "c")
    withdraw(made.store, ["b"], "", noon, "gone")
    made.load()
    made.drop("z", "b", "d")
    made.load(noon + HOUR)
    assert (made.pool(), made.ledger().withdrawn()) == (["c", "d"], {"b"})


def test_a_sample_may_be_withdrawn_and_released_before_any_load(made, noon):
    made.drop("a", "b", "c")
    made.quarantine(1, "c")
    assert withdraw(made.store, ["b"], "", noon, "gone")[1] == 1
    assert release(made.store, [], noon) == 1
    assert made.states() == {"c": "pool"}


def test_a_release_names_a_round_and_frees_nothing_that_a_later_one_could_not_read(made, noon):
    made.drop("a", "b")
    made.quarantine(1, "b")
    release(made.store, ["b"], noon)
    made.quarantine(2, "b")
    made.load()
    assert made.states() == {"b": "quarantined"}


def test_while_a_run_holds_the_project_nothing_is_withdrawn(made, holder, noon):
    made.drop("a", "b")
    lock.acquire(made.store, holder("run-1"), noon, noon + HOUR)
    before = made.files()
    with pytest.raises(LockedError, match="the project is locked by run run-1 until"):
        withdraw(made.store, ["b"], "", noon, "gone")
    assert made.files() == before
