"""A strategy: the module that holds its arithmetic, with its tunables and the checks that all strategies share."""

from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.types import Features, Head, Labelled, LinearHead, Scores
from alfamix_core.errors import InputError

_WORDS = {
    "embeddings": "embedding",
    "logits": "logits",
    "mc_logits": "logits of a dropout pass",
    "deepfool": "DeepFool norm",
}


class StrategyModule(Protocol):
    """The names that a file in ``strategies/`` defines.

    A module may also define ``summary(scores, state, need)``, numbers for the report, and ``COLUMN_TUNABLES``, the
    names of those tunables that say how its columns are computed.
    """

    COLUMNS: frozenset[str]
    NEEDS_LABELS: bool
    USES_HEAD: bool

    def prepare(self, labelled: Labelled, head: Head, tunables: Any, *, seed: int) -> Any:
        """Return the state that every shard needs: small, deterministic and frozen; the tunables are in it."""

    def score(self, block: Features, state: Any) -> Scores:
        """Score each sample by itself: its bits do not depend on the block."""

    def keep(self, scores: Scores, state: Any, reach: int) -> Scores:
        """Return the rows needed to choose up to ``reach`` queries. Keeping parts, then their merge, loses nothing."""

    def select(self, scores: Scores, state: Any, batch: Batch, generator: torch.Generator) -> None:
        """Offer samples by position, best first, until the batch is full or all were offered.

        A sample that joins counts as chosen from then on: as a centre, as covered, as labelled. A refused sample is no
        query and must keep no other sample away.
        """


_LARGEST = {"embeddings": 1e15}
"""Values up to this have products, and sums of thousands of them, within float32. Logits are only compared."""
_SMALLEST = 1e-15
"""Squares and products of float32 lose their digits if every value is smaller."""


def first_bad_row(column_nX: Tensor, what: str) -> int | None:
    """Return the index of the first row with a value that is not finite, or too large.

    Args:
        column_nX: (n, …) of a floating dtype.
        what: Name of the column; embeddings have a lower limit than the others.
    """
    if not column_nX.numel():
        return None
    # one cheap pass; only if it finds a bad value is the row looked up
    lowest, highest = torch.aminmax(column_nX)
    largest = _LARGEST.get(what, torch.finfo(column_nX.dtype).max)
    if bool((lowest >= -largest) & (highest <= largest)):
        return None
    sizes_n = torch.linalg.vector_norm(column_nX.reshape(len(column_nX), -1), ord=torch.inf, dim=1)
    bad_m = (~(sizes_n <= largest)).nonzero()[:, 0]
    return int(bad_m[0]) if len(bad_m) else None


def fault(row_X: Tensor) -> str:
    """Return the fault of a bad row, to follow its name in an error."""
    if not bool(row_X.isfinite().all()):
        return "has a value that is not finite"
    return f"must have no value above {_LARGEST['embeddings']:g}, and has {float(row_X.abs().max()):.3g}"


def _check_labelled(labelled: Labelled, columns: frozenset[str]) -> None:
    """Refuse labelled samples that no strategy can compute with.

    Raises:
        InputError: A value is not finite or too large, all embeddings are too small, a label is no class, or
            the numbers of embeddings, logits and labels differ.
    """
    L, K = len(labelled), labelled.logits_LK.shape[1]
    for what, rows in (("embeddings", labelled.embeddings_LD), ("logits", labelled.logits_LK)):
        if len(rows) != L:
            raise InputError(f"labelled samples: there must be as many {what} as labels, {L}, not {len(rows)}")
        bad = first_bad_row(rows, what) if what == "embeddings" or what in columns else None
        if bad is not None:
            raise InputError(f"labelled sample {bad}: {_WORDS[what]} {fault(rows[bad])}")
    largest = float(torch.linalg.vector_norm(labelled.embeddings_LD, ord=torch.inf)) if L else 0.0
    if 0 < largest < _SMALLEST:
        raise InputError(f"labelled samples: one value at least must be {_SMALLEST:g}, the largest is {largest:.3g}")
    wrong_m = ((labelled.labels_L < 0) | (labelled.labels_L >= K)).nonzero()[:, 0]
    if len(wrong_m):
        row = int(wrong_m[0])
        raise InputError(f"labelled sample {row}: label must be a class in [0, {K}), not {int(labelled.labels_L[row])}")


def _check_head(head: Head, labelled: Labelled) -> None:
    """Refuse a head that does not fit the labelled samples, or gives no numbers.

    Raises:
        InputError: Its sizes are not those of the embeddings and logits, or a value is not finite.
    """
    D, K = labelled.embeddings_LD.shape[1], labelled.logits_LK.shape[1]
    if isinstance(head, LinearHead):
        if tuple(head.weight_KD.shape) != (K, D) or tuple(head.bias_K.shape) != (K,):
            shapes = f"{tuple(head.weight_KD.shape)} and {tuple(head.bias_K.shape)}"
            raise InputError(f"head: weight and bias must have shapes {(K, D)} and {(K,)}, not {shapes}")
        rows_KX = torch.cat([head.weight_KD, head.bias_K[:, None]], dim=1)
        bad = first_bad_row(rows_KX, "embeddings")
        if bad is not None:
            raise InputError(f"head: weight or bias of class {bad} {fault(rows_KX[bad])}")
        return
    if not len(labelled):
        return
    with torch.no_grad():
        logits_1K = head(labelled.embeddings_LD[:1].to(torch.float32))
    if tuple(logits_1K.shape) != (1, K):
        raise InputError(f"head: logits of one sample must have shape {(1, K)}, not {tuple(logits_1K.shape)}")
    if not bool(logits_1K.isfinite().all()):
        raise InputError("head: logits of labelled sample 0 has a value that is not finite")


@dataclass(frozen=True)
class Strategy:
    """A strategy with its tunables, ready to be used; ``strategies.load`` makes it.

    Attributes:
        name: Name of its file.
        module: Module that holds its arithmetic.
        tunables: Instance of its dataclass in ``tunables/``.
    """

    name: str
    module: StrategyModule
    tunables: Any

    @property
    def columns(self) -> frozenset[str]:
        """The columns of ``Features`` that it reads."""
        return self.module.COLUMNS

    @property
    def needs_labels(self) -> bool:
        """Whether it is undefined without a labelled sample."""
        return self.module.NEEDS_LABELS

    @property
    def uses_head(self) -> bool:
        """Whether it reads the head itself, beyond the logits."""
        return self.module.USES_HEAD

    def column_parameters(self) -> dict[str, Any]:
        """Return the tunables that say how its columns are computed, with their values, for ``embed``."""
        names: frozenset[str] = getattr(self.module, "COLUMN_TUNABLES", frozenset())
        return {name: getattr(self.tunables, name) for name in sorted(names)}

    def prepare(self, labelled: Labelled, head: Head, seed: int) -> Any:
        """Return the state that every shard needs.

        Args:
            labelled: L labelled samples.
            head: Head of the model that computed the features.
            seed: Seed of the noise that belongs to positions.

        Returns:
            The strategy's state.

        Raises:
            InputError: No sample is labelled where labels are needed, or the strategy cannot compute with these or the
                head; the message names the sample or the class.
        """
        if self.needs_labels and not len(labelled):
            raise InputError(f'strategy "{self.name}" needs at least one labelled sample, and there is none')
        _check_labelled(labelled, self.columns)
        if self.uses_head:
            _check_head(head, labelled)
        return self.module.prepare(labelled, head, self.tunables, seed=seed)

    def score(self, block: Features, state: Any) -> Scores:
        """Score the samples of one block.

        Args:
            block: n >= 0 samples with at least the strategy's columns.
            state: Result of ``prepare``.

        Returns:
            One score per sample, in position order, and the rows that ``select`` needs.

        Raises:
            InputError: A column is missing, or a value is not finite; the message names the position.
        """
        for name in sorted(self.columns):
            column_nX = block.column(name)
            if column_nX is None:
                raise InputError(f'strategy "{self.name}" needs the column "{name}", which was not computed')
            bad = first_bad_row(column_nX, name)
            if bad is not None:
                position = int(block.positions_n[bad])
                raise InputError(f"sample at position {position}: {_WORDS[name]} {fault(column_nX[bad])}")
        scores = self.module.score(block, state)
        wrong_m = (~(scores.scores_n < torch.inf)).nonzero()[:, 0]
        if len(wrong_m):
            position, value = int(scores.positions_n[wrong_m[0]]), float(scores.scores_n[wrong_m[0]])
            raise InputError(f"sample at position {position}: score is {value}; its features or the head are too large")
        return scores

    def keep(self, scores: Scores, state: Any, reach: int) -> Scores:
        """Return the rows that are needed to choose up to ``reach`` queries."""
        return self.module.keep(scores, state, reach)

    def fill(self, batch: Batch, scores: Scores, state: Any, generator: torch.Generator) -> None:
        """Offer samples, best first, until the batch is full or all were offered.

        Args:
            batch: Empty batch over the positions of the scores.
            scores: Merge of the rows that all shards sent.
            state: Result of ``prepare``.
            generator: Source of all randomness of the choice.
        """
        self.module.select(scores, state, batch, generator)
        assert not batch.missing or not bool(batch.untouched(scores.positions_n).any()), (
            f'strategy "{self.name}" left queries missing and samples without an offer'
        )

    def select(self, scores: Scores, state: Any, need: int, generator: torch.Generator) -> Tensor:
        """Return min(need, n) distinct positions, best first, chosen without a rule."""
        batch = Batch(min(need, len(scores)), scores.positions_n)
        self.fill(batch, scores, state, generator)
        return torch.tensor(batch.taken, dtype=torch.int64, device=scores.positions_n.device)

    def summary(self, scores: Scores, state: Any, need: int) -> dict[str, float | int]:
        """Return the strategy's own numbers for the report; most strategies have none."""
        summarise = getattr(self.module, "summary", None)
        return cast(dict[str, float | int], summarise(scores, state, need)) if summarise else {}
