from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.rows import Rows
from alfamix_core.acquisition.strategies.class_threshold import Memberships, Runs, asked_ranks, spread
from alfamix_core.acquisition.strategies.margin import margins
from alfamix_core.acquisition.types import Features, Labelled, LinearHead, Scores
from alfamix_core.errors import InputError

ON_EACH_DEVICE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def result(device, marks, count, own=0):
    """Places for a row of marks from most to least like the class: 1 and 0 are labels, ? are pool samples."""
    ranks = torch.tensor([marks[:target].count("?") for target, mark in enumerate(marks) if mark != "?"])
    is_k = torch.tensor([mark == "1" for mark in marks if mark != "?"])
    return asked_ranks(ranks.long().to(device), is_k.bool().to(device), marks.count("?"), own, count)


def by_loop(marks, count, own):
    """Literally: every run between two labels that differ; else every cut."""
    unlabelled, labelled = marks.count("?"), [target for target, mark in enumerate(marks) if mark != "?"]
    runs = [(b - a - 1, marks[:a].count("?")) for a, b in pairwise(labelled) if marks[a] != marks[b] and b - a > 1]
    if runs:
        length, start = min(runs)
        return {start + target for target in spread(length, count)}
    cuts = []
    for target in range(len(marks) + 1):
        wrong = marks[:target].count("0") + marks[target:].count("1")
        cut = marks[:target].count("?")
        cuts.append((wrong, abs(cut - own), cut))
    cut = min(cuts)[2]
    start = min(max(cut - (count + 1) // 2, 0), max(unlabelled - count, 0))
    return set(range(start, min(start + count, unlabelled)))


def chosen(pool, labelled, labels, need, parts=1):
    """The choice from logits that lie in so many parts."""
    K, device = pool.shape[1], pool.device
    task = Labelled(torch.zeros(len(labelled), 1, device=device), labelled, torch.tensor(labels, device=device))
    strategy = strategies.load("class_threshold")
    state = strategy.prepare(task, LinearHead(torch.zeros(K, 1, device=device), torch.zeros(K, device=device)), 0)
    scores = strategy.score(Features(torch.arange(len(pool), device=device), None, pool), state)
    scores = Scores(scores.positions_n, scores.scores_n, {"logits": Rows(pool.chunk(parts))})
    return strategy.select(scores, state, need, torch.Generator()).tolist()


def two_classes(device, *shares):
    """Logits of samples whose first class has these probabilities."""
    share = torch.tensor(shares, dtype=torch.float64, device=device)
    return torch.stack([share.log(), (1 - share).log()], dim=1).float()


def test_a_run_is_searched_evenly_by_hand(device):
    """Labels 1 ? ? ? ? ? 0: one query takes the third, two the second and fourth."""
    assert result(device, "1?????0", 1) == [2]
    assert sorted(result(device, "1?????0", 2)) == [1, 3]
    assert result(device, "1?????0", 5) == [2, 1, 3, 0, 4]
    assert sorted(result(device, "1?????0", 9)) == [0, 1, 2, 3, 4]


@given(st.integers(0, 60), st.integers(1, 70))
def test_places_of_a_run_are_distinct_and_cut_it_into_equal_pieces(length, count):
    ends = [-1, *spread(length, count), length]
    pieces = [b - a for a, b in pairwise(ends)]
    assert len(ends) == min(length, count) + 2
    assert min(pieces) >= 1
    assert max(pieces) - min(pieces) <= 1


def test_the_shortest_run_counts_the_first_of_equal_length(device):
    assert result(device, "1????0?1????????0", 1) == [4]
    assert result(device, "?1???0???1?", 1) == [2]
    assert result(device, "1?1?0?0", 1) == [1]


def test_labels_that_touch_have_no_run_and_the_cut_between_them_is_surrounded(device):
    assert result(device, "???11" + "00???", 2) == [2, 3]
    assert result(device, "???11" + "00???", 3) == [2, 3, 1]


def test_without_one_of_the_two_the_models_own_cut_decides(device):
    assert sorted(result(device, "?????", 2, own=3)) == [2, 3]
    assert result(device, "0?????", 1, own=3) == [2] or result(device, "0?????", 1, own=3) == [0]
    assert sorted(result(device, "??0????", 2, own=5)) == [1, 2]
    assert sorted(result(device, "????1??", 2, own=1)) == [3, 4]
    assert sorted(result(device, "???", 9, own=0)) == [0, 1, 2]


@ON_EACH_DEVICE
@given(marks=st.text("01??", max_size=25), count=st.integers(1, 8), data=st.data())
def test_places_are_those_of_the_loop(device, marks, count, data):
    own = data.draw(st.integers(0, marks.count("?")))
    assert set(result(device, marks, count, own)) == by_loop(marks, count, own)


@ON_EACH_DEVICE
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.lists(st.integers(0, 6), max_size=8), st.data())
def test_runs_have_the_places_of_the_sorted_pool(device, pool, labelled, data):
    keys, labels = (torch.tensor(values, dtype=torch.float64, device=device) for values in (pool, labelled))
    runs = Runs.of(keys, labels.sort(descending=True).values)
    order = sorted(range(len(pool)), key=lambda row: (-pool[row], row))
    assert runs.ends_l[:-1].tolist() == [sum(key > label for key in pool) for label in sorted(labelled, reverse=True)]
    places = data.draw(st.lists(st.integers(0, len(pool) - 1), max_size=5))
    assert runs.rows(places) == [order[target] for target in places]


def test_classes_take_turns_the_rarest_first(device):
    """Of three labels one is of class 1, which comes first: of the run .5, .6, .7, .8 it takes .6, class 0 .7."""
    pool = two_classes(device, 0.9, 0.8, 0.7, 0.6, 0.5)
    assert chosen(pool, two_classes(device, 0.95, 0.85, 0.1), [0, 0, 1], 1) == [3]
    assert chosen(pool, two_classes(device, 0.95, 0.85, 0.1), [0, 0, 1], 2) == [3, 2]


def test_a_sample_that_two_classes_ask_about_is_asked_once(device):
    """A run of .8, .7, .6: both classes take the middle, and the smallest margin is the second query."""
    pool = two_classes(device, 0.9, 0.8, 0.7, 0.6)
    assert chosen(pool, two_classes(device, 0.95, 0.85, 0.1), [0, 0, 1], 2) == [2, 3]


def test_two_ends_of_a_class_keep_their_order_however_confident(device):
    logits = torch.tensor([[0.0, -60.0], [0.0, -40.0], [0.0, -20.0], [0.0, 0.0], [-20.0, 0.0], [-60.0, 0.0]])
    logits = logits.to(device)
    keys = Memberships.of(logits).keys(range(1))[0]
    assert keys.argsort(descending=True).tolist() == [0, 1, 2, 3, 4, 5]
    assert len(keys.unique()) == 6
    assert (keys >= 1).tolist() == [True] * 4 + [False] * 2


@ON_EACH_DEVICE
@given(K=st.integers(2, 6), seed=st.integers(0, 1000))
def test_keys_sort_by_the_lead_and_then_the_probability(device, K, seed):
    logits = torch.randn(60, K, generator=torch.Generator().manual_seed(seed)).to(device)
    probs = logits.double().softmax(dim=1)
    keys = Memberships.of(logits).keys(range(K))
    for k in range(K):
        pairs = list(zip((probs[:, k] - probs.amax(dim=1)).tolist(), probs[:, k].tolist(), strict=True))
        expected = sorted(range(60), key=lambda row: pairs[row], reverse=True)
        assert keys[k].sort(descending=True, stable=True).indices.tolist() == expected


def test_what_the_classes_leave_is_filled_by_margin(device):
    pool = two_classes(device, 0.99, 0.7, 0.9, 0.55, 0.8)
    assert chosen(pool, two_classes(device, 0.995, 0.97), [0, 1], 4) == [0, 3, 1, 4]


def test_a_class_without_labels_is_asked_around_the_models_own_cut(device):
    pool = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).to(device)
    keys = Memberships.of(pool).keys(range(2, 3))[0]
    asked = chosen(pool, pool[keys.argsort()[:10]], [0] * 5 + [1] * 5, 3)
    own = keys[keys >= 1]
    assert len(set(asked)) == 3
    assert float(keys[asked[0]]) == float(own.min())


def test_a_labelled_logit_that_is_not_finite_is_refused(device):
    with pytest.raises(InputError, match="labelled sample 1: logits has a value that is not finite"):
        chosen(two_classes(device, 0.5, 0.6), torch.tensor([[0.0, 1.0], [torch.nan, 0.0]], device=device), [0, 1], 1)


def by_class(pool, labelled, labels, need):
    """Literally: all keys of one class after another, the rarest first, then turns and the margins."""
    classes, columns = pool.shape[1], {"pool": pool, "labelled": labelled}
    counts = [labels.count(k) for k in range(classes)]
    asked = []
    for k in sorted(range(classes), key=lambda k: (counts[k], k)):
        keys = {}
        for name, logits in columns.items():
            log_probs = logits.double().log_softmax(dim=1)
            top = log_probs.scatter(1, logits.argmax(dim=1, keepdim=True), -torch.inf).exp().sum(dim=1)
            lead = top + (logits[:, k].double() - logits.double().logsumexp(dim=1)).exp()
            lead = lead.clamp(max=1 - 2**-53)
            keys[name] = torch.where(logits[:, k] == logits.amax(dim=1), 1 / top, lead).tolist()
        pool_order = sorted(range(len(pool)), key=lambda row: (-keys["pool"][row], row))
        order = sorted(range(len(labelled)), key=lambda row: (-keys["labelled"][row], row))
        ranks = [sum(key > keys["labelled"][row] for key in keys["pool"]) for row in order]
        is_k = torch.tensor([labels[row] == k for row in order])
        own = sum(key >= 1 for key in keys["pool"])
        asked.append(
            [pool_order[at] for at in asked_ranks(torch.tensor(ranks), is_k, len(pool), own, -(-need // classes))]
        )
    turns = [rows[turn] for turn in range(-(-need // classes)) for rows in asked if turn < len(rows)]
    margin = margins(pool.double().log_softmax(dim=1)).float().tolist()
    return list(dict.fromkeys(turns + sorted(range(len(pool)), key=lambda row: (-margin[row], row))))[:need]


@pytest.mark.parametrize(("K", "need"), [(5, 12), (16, 40), (37, 30), (37, 90)])
def test_the_choice_is_that_of_one_class_after_another(device, K, need):
    """More classes than one pass serves, logits in parts."""
    random = torch.Generator().manual_seed(K)
    pool, labelled = 3 * torch.randn(300, K, generator=random), 3 * torch.randn(40, K, generator=random)
    labels = torch.randint(K, (40,), generator=random).tolist()
    expected = by_class(pool, labelled, labels, need)
    for parts in (1, 7):
        assert chosen(pool.to(device), labelled.to(device), labels, need, parts) == expected


def test_keys_do_not_depend_on_the_parts_nor_on_the_classes_beside(device):
    """Several blocks, cut anywhere."""
    logits = (4 * torch.randn(5000, 19, generator=torch.Generator().manual_seed(0))).to(device)
    whole = Memberships.of(logits).keys(range(19))
    cut = Memberships.of(Rows((logits[:1], logits[1:3000], logits[3000:])))
    assert torch.equal(torch.cat([cut.keys(range(16)), cut.keys(range(16, 19))]), whole)
