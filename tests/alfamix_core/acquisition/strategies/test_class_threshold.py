from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.strategies.class_threshold import Memberships, places, spread
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from alfamix_core.errors import InputError


def found(marks, count, own=0):
    """Places for a row of marks from most to least like the class: 1 and 0 are labels, ? are pool samples."""
    ranks = torch.tensor([marks[:place].count("?") for place, mark in enumerate(marks) if mark != "?"])
    is_k = torch.tensor([mark == "1" for mark in marks if mark != "?"])
    return places(ranks.long(), is_k.bool(), marks.count("?"), own, count)


def by_loop(marks, count, own):
    """Literally: every run between two labels that differ; else every cut."""
    unlabelled, labelled = marks.count("?"), [place for place, mark in enumerate(marks) if mark != "?"]
    runs = [(b - a - 1, marks[:a].count("?")) for a, b in pairwise(labelled) if marks[a] != marks[b] and b - a > 1]
    if runs:
        length, start = min(runs)
        return {start + place for place in spread(length, count)}
    cuts = []
    for place in range(len(marks) + 1):
        wrong = marks[:place].count("0") + marks[place:].count("1")
        cut = marks[:place].count("?")
        cuts.append((wrong, abs(cut - own), cut))
    cut = min(cuts)[2]
    start = min(max(cut - (count + 1) // 2, 0), max(unlabelled - count, 0))
    return set(range(start, min(start + count, unlabelled)))


def chosen(pool, labelled, labels, need):
    K = pool.shape[1]
    task = Labelled(torch.zeros(len(labelled), 1), labelled, torch.tensor(labels))
    strategy = strategies.load("class_threshold")
    state = strategy.prepare(task, LinearHead(torch.zeros(K, 1), torch.zeros(K)), 0)
    scores = strategy.score(Features(torch.arange(len(pool)), None, pool), state)
    return strategy.select(scores, state, need, torch.Generator()).tolist()


def two_classes(*shares):
    """Logits of samples whose first class has these probabilities."""
    share = torch.tensor(shares, dtype=torch.float64)
    return torch.stack([share.log(), (1 - share).log()], dim=1).float()


def test_a_run_is_searched_evenly_by_hand():
    """Labels 1 ? ? ? ? ? 0: one query takes the third, two the second and fourth."""
    assert found("1?????0", 1) == [2]
    assert sorted(found("1?????0", 2)) == [1, 3]
    assert found("1?????0", 5) == [2, 1, 3, 0, 4]
    assert sorted(found("1?????0", 9)) == [0, 1, 2, 3, 4]


@given(st.integers(0, 60), st.integers(1, 70))
def test_places_of_a_run_are_distinct_and_cut_it_into_equal_pieces(length, count):
    ends = [-1, *spread(length, count), length]
    pieces = [b - a for a, b in pairwise(ends)]
    assert len(ends) == min(length, count) + 2
    assert min(pieces) >= 1
    assert max(pieces) - min(pieces) <= 1


def test_the_shortest_run_counts_the_first_of_equal_length():
    assert found("1????0?1????????0", 1) == [4]
    assert found("?1???0???1?", 1) == [2]
    assert found("1?1?0?0", 1) == [1]


def test_labels_that_touch_have_no_run_and_the_cut_between_them_is_surrounded():
    assert found("???11" + "00???", 2) == [2, 3]
    assert found("???11" + "00???", 3) == [2, 3, 1]


def test_without_one_of_the_two_the_models_own_cut_decides():
    assert sorted(found("?????", 2, own=3)) == [2, 3]
    assert found("0?????", 1, own=3) == [2] or found("0?????", 1, own=3) == [0]
    assert sorted(found("??0????", 2, own=5)) == [1, 2]
    assert sorted(found("????1??", 2, own=1)) == [3, 4]
    assert sorted(found("???", 9, own=0)) == [0, 1, 2]


@given(st.text("01??", max_size=25), st.integers(1, 8), st.data())
def test_places_are_those_of_the_loop(marks, count, data):
    own = data.draw(st.integers(0, marks.count("?")))
    assert set(found(marks, count, own)) == by_loop(marks, count, own)


def test_classes_take_turns_the_rarest_first():
    """Of three labels one is of class 1, which comes first: of the run .5, .6, .7, .8 it takes .6, class 0 .7."""
    pool = two_classes(0.9, 0.8, 0.7, 0.6, 0.5)
    assert chosen(pool, two_classes(0.95, 0.85, 0.1), [0, 0, 1], 1) == [3]
    assert chosen(pool, two_classes(0.95, 0.85, 0.1), [0, 0, 1], 2) == [3, 2]


def test_a_sample_that_two_classes_ask_about_is_asked_once():
    """A run of .8, .7, .6: both classes take the middle, and the smallest margin is the second query."""
    pool = two_classes(0.9, 0.8, 0.7, 0.6)
    assert chosen(pool, two_classes(0.95, 0.85, 0.1), [0, 0, 1], 2) == [2, 3]


def test_two_ends_of_a_class_keep_their_order_however_confident():
    logits = torch.tensor([[0.0, -60.0], [0.0, -40.0], [0.0, -20.0], [0.0, 0.0], [-20.0, 0.0], [-60.0, 0.0]])
    keys = Memberships.of(logits).keys(0)
    assert keys.argsort(descending=True).tolist() == [0, 1, 2, 3, 4, 5]
    assert len(keys.unique()) == 6
    assert (keys >= 1).tolist() == [True] * 4 + [False] * 2


@given(st.integers(2, 6), st.integers(0, 1000))
def test_keys_sort_by_the_lead_and_then_the_probability(K, seed):
    logits = torch.randn(60, K, generator=torch.Generator().manual_seed(seed))
    probs = logits.double().softmax(dim=1)
    for k in range(K):
        pairs = list(zip((probs[:, k] - probs.amax(dim=1)).tolist(), probs[:, k].tolist(), strict=True))
        expected = sorted(range(60), key=lambda row: pairs[row], reverse=True)
        assert Memberships.of(logits).keys(k).sort(descending=True, stable=True).indices.tolist() == expected


def test_what_the_classes_leave_is_filled_by_margin():
    pool = two_classes(0.99, 0.7, 0.9, 0.55, 0.8)
    assert chosen(pool, two_classes(0.995, 0.97), [0, 1], 4) == [0, 3, 1, 4]


def test_a_class_without_labels_is_asked_around_the_models_own_cut():
    pool = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    keys = Memberships.of(pool).keys(2)
    asked = chosen(pool, pool[keys.argsort()[:10]], [0] * 5 + [1] * 5, 3)
    own = keys[keys >= 1]
    assert len(set(asked)) == 3
    assert float(keys[asked[0]]) == float(own.min())


def test_a_labelled_logit_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="labelled sample 1: logits has a value that is not finite"):
        chosen(two_classes(0.5, 0.6), torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]), [0, 1], 1)
