import dataclasses

import pytest
import torch

from alfamix_core.acquisition import strategies
from alfamix_core.acquisition.types import Features, Labelled, LinearHead
from alfamix_core.errors import InputError

HEAD = LinearHead(torch.eye(2), torch.zeros(2))
NONE = Labelled(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
ONE = Labelled(torch.ones(1, 2), torch.ones(1, 2), torch.zeros(1, dtype=torch.int64))


@pytest.fixture
def head(device):
    return LinearHead(HEAD.weight_KD.to(device), HEAD.bias_K.to(device))


@pytest.fixture
def one(device):
    return Labelled(ONE.embeddings_LD.to(device), ONE.logits_LK.to(device), ONE.labels_L.to(device))


def message(call):
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def test_strategies_are_found_by_file_name():
    assert {"alfamix", "entropy", "least_confidence", "margin", "random", "typiclust"} <= set(strategies.names())
    assert strategies.names() == sorted(strategies.names())


@pytest.mark.parametrize("name", ["__init__", "os", "alfamix.State", ""])
def test_only_files_of_the_folder_are_strategies(name):
    assert "unknown strategy" in message(lambda: strategies.load(name))


def test_an_unknown_parameter_lists_the_known_ones():
    expected = 'strategy "dropquery": unknown parameter "pass"; known: passes, dropout, max_candidates, clustering'
    assert message(lambda: strategies.load("dropquery", {"pass": 3})) == expected
    assert (
        message(lambda: strategies.load("random", {"x": 1})) == 'strategy "random": unknown parameter "x"; it has none'
    )


def test_the_seed_is_no_parameter():
    assert "unknown parameter" in message(lambda: strategies.load("alfamix", {"seed": 1}))


def test_a_strategy_tells_what_it_needs():
    alfamix, margin, typiclust = (strategies.load(name) for name in ("alfamix", "margin", "typiclust"))
    assert (alfamix.columns, alfamix.needs_labels, alfamix.uses_head) == ({"embeddings"}, True, True)
    assert (margin.columns, margin.needs_labels, margin.uses_head) == ({"logits"}, False, False)
    assert (typiclust.columns, typiclust.needs_labels, typiclust.uses_head) == ({"embeddings"}, False, False)


def test_a_strategy_that_needs_labels_says_so():
    strategy = strategies.load("alfamix")
    expected = 'strategy "alfamix" needs at least one labelled sample, and there is none'
    assert message(lambda: strategy.prepare(NONE, HEAD, 0)) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_embedding_that_is_not_finite_names_its_position(device, head, one, value):
    strategy = strategies.load("alfamix")
    state = strategy.prepare(one, head, 0)
    rows = torch.zeros(5, 2, device=device)
    rows[3, 1] = value
    block = Features(torch.tensor([2, 3, 5, 17, 18], device=device), rows)
    expected = "sample at position 17: embedding has a value that is not finite"
    assert message(lambda: strategy.score(block, state)) == expected


def test_logits_that_are_not_finite_name_their_position(device, head, one):
    strategy = strategies.load("margin")
    block = Features(
        torch.tensor([4, 8], device=device),
        None,
        torch.tensor([[0.0, 1.0], [float("inf"), -float("inf")]], device=device),
    )
    expected = "sample at position 8: logits has a value that is not finite"
    assert message(lambda: strategy.score(block, strategy.prepare(one, head, 0))) == expected


def test_large_values_whose_sum_overflows_are_finite(device, head, one):
    strategy = strategies.load("margin")
    block = Features(torch.tensor([0], device=device), None, torch.full((1, 2), 3e38, device=device))
    assert strategy.score(block, strategy.prepare(one, head, 0)).scores_n.tolist() == [1.0]


def test_a_labelled_embedding_that_is_not_finite_names_its_row(device, head):
    bad = Labelled(
        torch.tensor([[0.0, 1.0], [float("nan"), 0.0]], device=device),
        torch.zeros(2, 2, device=device),
        torch.tensor([0, 1], device=device),
    )
    expected = "labelled sample 1: embedding has a value that is not finite"
    assert message(lambda: strategies.load("alfamix").prepare(bad, head, 0)) == expected


def test_a_column_that_was_not_computed_is_named(device, head, one):
    strategy = strategies.load("margin")
    expected = 'strategy "margin" needs the column "logits", which was not computed'
    assert (
        message(lambda: strategy.score(Features(torch.arange(1, device=device)), strategy.prepare(one, head, 0)))
        == expected
    )


@pytest.mark.parametrize("name", ["least_confidence", "margin", "entropy"])
def test_one_class_is_too_few_to_compare(device, head, one, name):
    strategy = strategies.load(name)
    block = Features(torch.arange(2, device=device), None, torch.zeros(2, 1, device=device))
    assert "two classes are needed" in message(lambda: strategy.score(block, strategy.prepare(one, head, 0)))


def test_alfamix_needs_two_classes():
    assert "the head has 1" in message(
        lambda: strategies.load("alfamix").prepare(
            dataclasses.replace(ONE, logits_LK=torch.ones(1, 1)), LinearHead(torch.ones(1, 2), torch.zeros(1)), 0
        )
    )


def test_a_strategy_without_a_summary_has_an_empty_one(device, head, one):
    strategy = strategies.load("random")
    state = strategy.prepare(one, head, 0)
    assert strategy.summary(strategy.score(Features(torch.arange(3, device=device)), state), state, 2) == {}


def test_a_strategy_tells_with_what_its_columns_are_computed():
    assert strategies.load("bald").column_parameters() == {"passes": 10}
    assert strategies.load("bald", {"passes": 3}).column_parameters() == {"passes": 3}
    assert strategies.load("dfal").column_parameters() == {"classes": 10}
    assert strategies.load("alfamix", {"grow": False}).column_parameters() == {}


def prepared(name="alfamix", *, embeddings=None, logits=None, labels=None, head=None):
    """Three labelled samples of two classes in two dimensions, with what is given in place of what is sound."""
    labelled = Labelled(
        torch.eye(3, 2) if embeddings is None else embeddings,
        torch.zeros(3, 2) if logits is None else logits,
        torch.tensor([0, 1, 0]) if labels is None else labels,
    )
    return strategies.load(name).prepare(labelled, head or LinearHead(torch.eye(2), torch.zeros(2)), 0)


@pytest.mark.parametrize("name", ["alfamix", "dropquery"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": torch.tensor([0, 7, 0])}, r"^labelled sample 1: label must be a class in \[0, 2\), not 7$"),
        ({"labels": torch.tensor([0, 1, -1])}, r"^labelled sample 2: label must be a class in \[0, 2\), not -1$"),
        (
            {"embeddings": torch.tensor([[0, 0], [2e19, -2e19], [1, 1]])},
            r"^labelled sample 1: embedding must have no value above 1e\+15, and has 2e\+19$",
        ),
        (
            {"embeddings": torch.full((3, 2), 1e-20)},
            r"^labelled samples: embeddings must have a value of 1e-15 or more, the largest is 1e-20$",
        ),
        (
            {"embeddings": torch.zeros(2, 2)},
            r"^labelled samples: there must be as many embeddings as labels, 3, not 2$",
        ),
        (
            {"head": LinearHead(torch.eye(2, 5), torch.zeros(2))},
            r"^head: weight and bias must have shapes \(2, 2\) and \(2,\), not \(2, 5\) and \(2,\)$",
        ),
        (
            {"head": LinearHead(torch.tensor([[0, 0], [torch.nan, 1]]), torch.zeros(2))},
            r"^head: weight or bias of class 1 has a value that is not finite$",
        ),
        (
            {"head": lambda rows: rows.new_full((len(rows), 2), torch.nan)},
            r"^head: logits of labelled sample 0 has a value that is not finite$",
        ),
        (
            {"head": lambda rows: rows.new_zeros((len(rows), 3))},
            r"^head: logits of one sample must have shape \(1, 2\), not \(1, 3\)$",
        ),
    ],
)
def test_what_cannot_be_computed_with_is_named_before_any_shard(name, given, message):
    with pytest.raises(InputError, match=message):
        prepared(name, **given)


def test_a_pool_embedding_that_is_too_large_is_named():
    strategy, state = strategies.load("alfamix"), prepared()
    block = Features(torch.arange(2), torch.tensor([[0, 0], [3e15, -3e15]]))
    message = r"^sample at position 1: embedding must have no value above 1e\+15, and has 3e\+15$"
    with pytest.raises(InputError, match=message):
        strategy.score(block, state)
