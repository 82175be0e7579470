"""The library's one call: from arrays to the rows worth labelling, without a project, a store or a pipeline."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alfamix_core.acquisition import policy, strategies
from alfamix_core.acquisition.constraints import AtMost, Constraint
from alfamix_core.acquisition.scoring import score_shard
from alfamix_core.acquisition.strategy import Strategy, fault, first_bad_row
from alfamix_core.acquisition.types import Features, Head, Labelled, LinearHead
from alfamix_core.arrays import Array, column, dense, floats, numbers, shown, some_rows, whole, whole_numbers
from alfamix_core.errors import InputError

_BLOCK_ROWS = 16_384
_SMALLEST = torch.finfo(torch.float32).tiny
"""A probability of 0 counts as this one: its logarithm is finite."""
_COLUMNS = {"mc_logits": ("passes", "classes"), "deepfool": ()}
"""Further columns, and the sizes of their rows."""


@dataclass(frozen=True)
class Selected:
    """The rows to be labelled.

    Attributes:
        indices: (m,) int64, rows of the arrays that ``select`` received, best first; numpy, or torch if those were.
        scores: (m,) float32, the strategy's score of each; higher is more informative.
        short_by: Number of queries of the budget that are missing.
        reason: Reason why they are missing, in one line; empty if none is.
    """

    indices: Array
    scores: Array
    short_by: int
    reason: str

    def __len__(self) -> int:
        return len(self.indices)


def select(
    embeddings: Array | None,
    labels: Array,
    head: Any = None,
    *,
    budget: int = 20,
    strategy: str = "alfamix",
    seed: int = 0,
    exclude: Array | None = None,
    groups: Sequence[Hashable] | Array | None = None,
    per_group: int = 1,
    probabilities: Array | None = None,
    columns: Mapping[str, Array] | None = None,
    **tunables: Any,
) -> Selected:
    """Choose the rows that are most worth a label.

    Args:
        embeddings: (N, D), finite; numpy or torch, on any device. None for strategies that read probabilities alone.
        labels: (N,) whole numbers: the class of each row, 0 … K - 1, or -1 where it is unknown. With a scikit-learn
            classifier they are its classes.
        head: Classifier on top of the embeddings: ``(W, b)``, (K, D) and (K,), such that the logits are
            embeddings @ W.T + b; a fitted linear classifier of scikit-learn; or a differentiable function from
            (n, D) float32 tensors to (n, K) logits. None if the strategy needs no more than embeddings or
            probabilities.
        budget: Number of rows, >= 0.
        strategy: Name of a strategy; ``alfamix_core.acquisition.strategies.names()`` lists them.
        seed: Source of all randomness, an integer >= 0.
        exclude: Rows that are never chosen, as (N,) bool or as row numbers. Strategies that cover the pool do not
            cover them either.
        groups: (N,) values of any kind that can be a key, such as the video of a frame.
        per_group: Largest number of chosen rows of a group, >= 1.
        probabilities: (N, K), rows that add up to 1, in place of a head.
        columns: Further columns by name: "mc_logits" (N, T, K) for bald, "deepfool" (N,) for dfal.
        tunables: Parameters of the strategy.

    Returns:
        min(budget, unlabelled rows) distinct rows without a label, best first; fewer where ``per_group`` allows no
        more.

    Raises:
        InputError: An argument cannot be used; the message names the argument and the row.
    """
    budget, seed = whole(budget, "budget", least=0), whole(seed, "seed", least=0)
    per_group = whole(per_group, "per_group", least=1)
    if not isinstance(strategy, str):
        raise InputError(f"strategy: must be the name of a strategy, not {shown(strategy)}")
    chosen = strategies.load(
        strategy, {name: value.item() if isinstance(value, np.generic) else value for name, value in tunables.items()}
    )
    table = _Table.read(chosen, embeddings, labels, head, probabilities, {} if columns is None else columns)
    asked_N = (table.labels_N < 0) & ~_excluded(exclude, len(table.labels_N))
    asked_n = asked_N.nonzero()[:, 0]
    labelled = table.labelled()
    state = chosen.prepare(labelled, table.head or _silent(labelled), seed)
    rules: list[Constraint] = []
    reach = min(policy.reach(budget, sparse=groups is not None), len(table.labels_N))
    scores = score_shard(chosen, table.blocks(asked_n, logits="logits" in chosen.columns), state, reach)
    if groups is not None:
        codes_N = _codes(groups, len(table.labels_N))
        limits = dict.fromkeys(codes_N.tolist(), per_group)
        rules.append(AtMost(codes_N[scores.positions_n.cpu()], limits, "group"))
    generator = torch.Generator().manual_seed(seed)
    choice = policy.choose(chosen, scores, state, budget, generator, reach=reach, constraints=rules)
    indices_m = torch.tensor([query.position for query in choice.queries], dtype=torch.int64)
    scores_m = torch.tensor([query.score for query in choice.queries], dtype=torch.float32)
    if table.in_torch:
        return Selected(indices_m, scores_m, choice.short_by, choice.reason)
    return Selected(indices_m.numpy(), scores_m.numpy(), choice.short_by, choice.reason)


@dataclass(frozen=True)
class _Table:
    """The caller's arrays, checked; rows are copied a block at a time.

    Attributes:
        embeddings: (N, D), as they were passed; None without any.
        logits: (N, K) float32 where probabilities were given, else None: they are computed from the embeddings.
        others: Further columns, as they were passed.
        labels_N: (N,) int64 on the CPU, -1 for unknown.
        head: Head of the caller; None without any.
        classes: Number of classes K; None if nothing tells it.
        device: Device that computes.
        in_torch: Whether the caller's arrays are tensors.
    """

    embeddings: Array | None
    logits: Tensor | None
    others: Mapping[str, Array]
    labels_N: Tensor
    head: Head | None
    classes: int | None
    device: torch.device
    in_torch: bool

    @staticmethod
    def read(
        strategy: Strategy,
        embeddings: Array | None,
        labels: Array,
        head: Any,
        probabilities: Array | None,
        others: Mapping[str, Array],
    ) -> "_Table":
        """Check the arrays against each other and the strategy's needs.

        Raises:
            InputError: They do not fit.
        """
        labels_N = whole_numbers(labels, "labels")
        N = len(labels_N)
        if embeddings is not None:
            embeddings = column(embeddings, "embeddings", (N, "features"))
        if probabilities is not None:
            probabilities = column(probabilities, "probabilities", (N, "classes"))
        wide = embeddings if embeddings is not None else probabilities
        device = wide.device if isinstance(wide, Tensor) else torch.device("cpu")
        if head is not None and probabilities is not None:
            raise InputError("head and probabilities: give one of them, they could contradict each other")
        _complete(strategy, embeddings, head, probabilities, others)
        function, names = _head(head, None if embeddings is None else embeddings.shape[1], device)
        logits = None if probabilities is None else _logarithms(probabilities, device)
        classes = None if logits is None else logits.shape[1]
        if function is not None and embeddings is not None:
            classes = _check_head(function, embeddings[:1], device, names)
        labels_N = _numbered(labels_N, names, classes)
        others = {name: column(others[name], name, (N, *_COLUMNS[name])) for name in others}
        table = _Table(embeddings, logits, others, labels_N, function, classes, device, isinstance(wide, Tensor))
        table._check_rows()
        return table

    def _check_rows(self) -> None:
        """Look for values that are not finite or too large, a block at a time.

        Raises:
            InputError: There is one; it names the row.
        """
        for name, values in (("embeddings", self.embeddings), *self.others.items()):
            for start in range(0, 0 if values is None else len(values), _BLOCK_ROWS):
                block = floats(values[start : start + _BLOCK_ROWS], self.device)
                bad = first_bad_row(block, name)
                if bad is not None:
                    raise InputError(f"{name}: row {start + bad} {_fault(block[bad])}")

    def features(self, rows_n: Tensor, *, logits: bool) -> Features:
        """Return the columns of some rows, whose positions are the caller's rows, with the head's logits on demand."""
        embeddings_nD = None if self.embeddings is None else floats(some_rows(self.embeddings, rows_n), self.device)
        logits_nK = None if self.logits is None else self.logits[rows_n.to(self.device)]
        if embeddings_nD is not None and self.head is not None:
            # a strategy that calls the head itself does not check what a function returns for each row
            if logits or not isinstance(self.head, LinearHead):
                logits_nK = self._checked_logits(embeddings_nD, rows_n)
            logits_nK = logits_nK if logits else None
        others = {name: floats(some_rows(values, rows_n), self.device) for name, values in self.others.items()}
        return Features(
            rows_n.to(self.device), embeddings_nD, logits_nK, others.get("mc_logits"), others.get("deepfool")
        )

    def _checked_logits(self, embeddings_nD: Tensor, rows_n: Tensor) -> Tensor:
        """Return the head's logits, every one of them finite.

        Raises:
            InputError: The head cannot take the rows, or returns a value that is not finite; it names the row.
        """
        assert self.head is not None
        with torch.no_grad():
            logits_nK = self.head(embeddings_nD.to(torch.float32, copy=True))
        bad_n = (~logits_nK.isfinite().all(dim=1)).nonzero()
        if len(bad_n):
            raise InputError(f"head: row {int(rows_n[int(bad_n[0, 0])])} gets a logit that is not finite")
        return logits_nK

    def labelled(self) -> Labelled:
        """Return the rows with a class; missing embeddings are filled with 1 and missing logits with 0."""
        rows_L = (self.labels_N >= 0).nonzero()[:, 0]
        features = self.features(rows_L, logits=True)
        labels_L = self.labels_N[rows_L].to(self.device)
        classes = int(labels_L.max()) + 1 if len(labels_L) else 2
        embeddings_LD, logits_LK = features.embeddings_nD, features.logits_nK
        if embeddings_LD is None:
            embeddings_LD = torch.ones(len(rows_L), 1, device=self.device)
        if logits_LK is None:
            logits_LK = torch.zeros(len(rows_L), max(classes, 2), device=self.device)
        return Labelled(embeddings_LD, logits_LK, labels_L)

    def blocks(self, rows_n: Tensor, *, logits: bool) -> Iterator[Features]:
        """Yield the features of some rows, at least one block."""
        for start in range(0, max(len(rows_n), 1), _BLOCK_ROWS):
            yield self.features(rows_n[start : start + _BLOCK_ROWS], logits=logits)


def _fault(row_X: Tensor) -> str:
    """Return what is wrong with a row, whose value may have been finite before it was rounded."""
    return fault(row_X) if bool(row_X.isfinite().all()) else "has a value that is not finite in float32"


def _complete(
    strategy: Strategy, embeddings: Array | None, head: Any, probabilities: Array | None, others: Mapping[str, Array]
) -> None:
    """Check that every input that the strategy reads is present.

    Raises:
        InputError: Something is missing, or a further column has a name that no strategy reads.
    """
    if not isinstance(others, Mapping):
        raise InputError(f"columns: must be a dict from names to arrays, not {shown(others)}")
    unknown = [name for name in others if name not in _COLUMNS]
    if unknown:
        raise InputError(f"columns: no strategy reads {shown(unknown[0])}; known: {', '.join(_COLUMNS)}")
    words = f'strategy "{strategy.name}" needs '
    if "embeddings" in strategy.columns and embeddings is None:
        raise InputError(words + "embeddings, and they are None")
    if strategy.uses_head and head is None:
        raise InputError(words + "a head: (W, b), a fitted linear classifier or a function")
    if "logits" in strategy.columns and probabilities is None and (head is None or embeddings is None):
        raise InputError(words + "predictions: give embeddings with a head, or probabilities")
    for name in _COLUMNS:
        if name in strategy.columns and name not in others:
            raise InputError(words + f'the column "{name}": give columns={{"{name}": …}}')


def _head(head: Any, D: int | None, device: torch.device) -> tuple[Head | None, Tensor | None]:
    """Return a head, and the caller's numbers of the classes if they are not 0 … K - 1.

    Raises:
        InputError: It cannot be a head, or has another width.
    """
    names = None
    if head is None:
        return None, None
    if hasattr(head, "coef_") and hasattr(head, "intercept_") and hasattr(head, "classes_"):
        weight = np.atleast_2d(numbers(head.coef_, "head: coef_"))
        bias = np.atleast_1d(numbers(head.intercept_, "head: intercept_"))
        names = whole_numbers(head.classes_, "head: classes_")
        if -1 in names.tolist():
            raise InputError("head: classes_ has -1, which stands for an unknown class in labels; fit it with another")
        if bias.shape in ((), (1,)):
            bias = np.broadcast_to(bias, (len(weight),))
        if len(names) == 2 and len(weight) == 1:
            # one function, the logit of the second class about the first
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        if len(names) != len(weight):
            raise InputError(f"head: {len(names)} classes, but coefficients of {len(weight)}")
        head = (weight, bias)
    if isinstance(head, tuple | list):
        if len(head) != 2:
            raise InputError(f"head: (W, b) has two parts, not {len(head)}")
        weight_KD, bias_K = (
            floats(numbers(part, f"head: {name}"), device) for name, part in zip("Wb", head, strict=True)
        )
        if weight_KD.dim() != 2 or bias_K.shape != weight_KD.shape[:1]:
            shapes = f"{tuple(weight_KD.shape)} and {tuple(bias_K.shape)}"
            raise InputError(f"head: W must be (K, D) and b (K,), not {shapes}")
        if D is not None and weight_KD.shape[1] != D:
            shape = tuple(weight_KD.shape)
            raise InputError(f"head: W must have one column per feature of the embeddings, {D}, not the shape {shape}")
        return LinearHead(weight_KD, bias_K), names
    if callable(head):
        return head, None
    kind = type(head).__name__
    raise InputError(f"head: must be (W, b), a fitted linear classifier or a function, not {kind}")


def _silent(labelled: Labelled) -> LinearHead:
    """Return a head of zeros for strategies that read none."""
    D, K = labelled.embeddings_LD.shape[1], labelled.logits_LK.shape[1]
    return LinearHead(labelled.embeddings_LD.new_zeros(K, D), labelled.embeddings_LD.new_zeros(K))


def _check_head(head: Head, first: Array, device: torch.device, names_K: Tensor | None) -> int:
    """Return the number of classes, from the logits of one row.

    Raises:
        InputError: The head cannot take the row, returns no logits, or has a value that is not finite or too large.
    """
    if isinstance(head, LinearHead):
        rows_KX = torch.cat([head.weight_KD, head.bias_K[:, None]], dim=1)
        bad = first_bad_row(rows_KX, "embeddings")
        if bad is not None:
            name = bad if names_K is None else int(names_K[bad])
            raise InputError(f"head: W or b of class {name} {_fault(rows_KX[bad])}")
    row_1D = floats(first, device).to(torch.float32, copy=True)  # a head that works in place gets a copy
    try:
        with torch.no_grad():
            logits = head(row_1D if len(row_1D) else row_1D.new_zeros(1, row_1D.shape[1]))
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"head: must take (n, {row_1D.shape[1]}) float32 embeddings, but raises {line}") from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 1:
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"head: must return a tensor (n, K) for (n, D) embeddings; for one row came {came}")
    if not logits.is_floating_point():
        raise InputError(f"head: must return floating-point logits, not {logits.dtype}")
    if logits.shape[1] < 2:
        raise InputError(f"head: two classes are needed to compare, it has {logits.shape[1]}")
    return logits.shape[1]


def _numbered(labels_N: Tensor, names_K: Tensor | None, classes: int | None) -> Tensor:
    """Return the labels as indices of classes, -1 where unknown.

    Raises:
        InputError: A label is none of the classes.
    """
    if names_K is None and classes is None:
        # only the labels tell the classes, and only the classes' sizes matter
        names_K = torch.from_numpy(np.unique(labels_N[labels_N >= 0].numpy()))
        bad_N = labels_N < -1
        numbered_N = torch.where(labels_N >= 0, torch.searchsorted(names_K, labels_N.contiguous()), labels_N)
        known = "0, 1, …"
    elif names_K is None:
        assert classes is not None
        largest = classes
        bad_N = (labels_N < -1) | (labels_N >= largest)
        known, numbered_N = f"0 … {largest - 1}", labels_N
    else:
        indices = {int(name): index for index, name in enumerate(names_K)}
        numbered_N = torch.tensor([indices.get(label, -1) for label in labels_N.tolist()], dtype=torch.int64)
        bad_N = (numbered_N < 0) & (labels_N != -1)
        known = ", ".join(map(str, indices))
    if bool(bad_N.any()):
        row = int(bad_N.nonzero()[0, 0])
        raise InputError(f"labels: row {row} has {int(labels_N[row])}; the classes are {known}, and -1 for unknown")
    return numbered_N


def _logarithms(probabilities: Array, device: torch.device) -> Tensor:
    """Return log-probabilities (N, K) float32 as logits.

    Raises:
        InputError: A row is no distribution.
    """
    probs_NK = floats(probabilities, device)
    if probs_NK.shape[1] < 2:
        raise InputError(f"probabilities: two classes are needed to compare, there are {probs_NK.shape[1]}")
    bad_N = ~((probs_NK >= 0).all(dim=1) & ((probs_NK.sum(dim=1) - 1).abs() < 1e-3))
    if bool(bad_N.any()):
        row = int(bad_N.nonzero()[0, 0])
        came = f"the smallest is {float(probs_NK[row].min()):.4g}, the sum {float(probs_NK[row].sum()):.4g}"
        raise InputError(f"probabilities: row {row} must be 0 or more and add up to 1; {came}")
    return probs_NK.clamp(min=_SMALLEST).log()


def _excluded(exclude: Array | None, N: int) -> Tensor:
    """Return a mask of the rows that are left out, (N,) bool.

    Raises:
        InputError: A mask of another length, or a row that does not exist.
    """
    left_out_N = torch.zeros(N, dtype=torch.bool)
    if exclude is None:
        return left_out_N
    if isinstance(exclude, set | frozenset):
        exclude = list(exclude)
    given = dense(exclude, "exclude")
    if given.dtype in (torch.bool, np.bool_):
        if tuple(given.shape) != (N,):
            raise InputError(f"exclude: a mask must have one value per row, {N}, not the shape {tuple(given.shape)}")
        return torch.as_tensor(given).cpu()
    rows_m = whole_numbers(given, "exclude")
    outside_m = (rows_m < 0) | (rows_m >= N)
    if bool(outside_m.any()):
        raise InputError(f"exclude: row {int(rows_m[outside_m][0])} does not exist; rows are 0 … {N - 1}")
    left_out_N[rows_m] = True
    return left_out_N


def _codes(groups: Sequence[Hashable] | Array, N: int) -> Tensor:
    """Return a number for each row's group, (N,) int64.

    Raises:
        InputError: Another length, a value that is not equal to itself, or values that cannot be keys.
    """
    if isinstance(groups, Tensor):
        groups = dense(groups, "groups")
    values = groups.tolist() if hasattr(groups, "tolist") else groups
    if not isinstance(values, Collection) or len(values) != N:
        came = len(values) if isinstance(values, Collection) else shown(groups)
        raise InputError(f"groups: must have one value per row, {N}, not {came}")
    # tensors of one number compare by that number, not by identity
    keys = [value.item() if isinstance(value, Tensor) and value.numel() == 1 else value for value in values]
    unequal = next((row for row, value in enumerate(keys) if isinstance(value, float) and value != value), None)
    if unequal is not None:
        raise InputError(f"groups: row {unequal} has nan, which is equal to nothing")
    codes: dict[Hashable, int] = {}
    try:
        return torch.tensor([codes.setdefault(value, len(codes)) for value in keys], dtype=torch.int64)
    except TypeError as error:
        raise InputError(f"groups: must be values that can be keys, such as texts or numbers: {error}") from None
