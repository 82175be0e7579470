"""The batch of a round while it is chosen: a strategy offers samples, best first, and the rules accept or refuse them.

Each choice of a strategy depends on the choices before it, so a rule must judge a sample when it is chosen: one that is
refused afterwards has already kept its neighbours away.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from alfamix_core.acquisition.constraints import Constraint


class Batch:
    """The queries so far, and which samples the rules have refused.

    Attributes:
        need: Number of queries wanted.
        taken: Positions of the queries so far, best first.
    """

    def __init__(
        self, need: int, positions_n: Tensor, rules: Sequence[Constraint] = (), indices_n: Tensor | None = None
    ):
        """Begin without a query.

        Args:
            need: Number of queries wanted, >= 0.
            positions_n: (n,) int64, ascending, all samples that can be offered.
            rules: Rules that no sample joined yet.
            indices_n: (n,) int64, the index by which the rules know each sample; None for 0, 1, ….
        """
        self.need = need
        self.taken: list[int] = []
        self._positions_n = positions_n.cpu()
        self._rules = rules
        self._indices_n = None if indices_n is None else indices_n.cpu()
        self._offered_n = torch.zeros(len(positions_n), dtype=torch.bool)
        self._refused: list[int] = []
        self._words: list[str] = []

    @property
    def missing(self) -> int:
        """The number of queries that are still wanted."""
        return self.need - len(self.taken)

    @property
    def refused(self) -> int:
        """The number of samples that were refused."""
        return len(self._refused)

    def refusals(self) -> list[str]:
        """Return the words of the rule that refused it, for each refused sample."""
        return list(self._words)

    def offer(self, position: int) -> bool:
        """Offer a sample that was not offered before; it joins if every rule accepts it.

        Args:
            position: One of the positions; the batch is not full.

        Returns:
            Whether it joined. If not, it stays refused.
        """
        return self._offer(int(torch.searchsorted(self._positions_n, position)), position)

    def _offer(self, row: int, position: int) -> bool:
        assert self.missing > 0, "the batch is full"
        assert not self._offered_n[row], f"position {position} is offered for the second time"
        self._offered_n[row] = True
        if not self._rules:
            self.taken.append(position)
            return True
        index = row if self._indices_n is None else int(self._indices_n[row])
        broken = next((rule.words for rule in self._rules if not rule.accepts(index)), None)
        if broken is not None:
            self._refused.append(position)
            self._words.append(broken)
            return False
        for rule in self._rules:
            rule.take(index)
        self.taken.append(position)
        return True

    def offer_all(self, positions_m: Tensor) -> None:
        """Offer samples in their order until the batch is full.

        Args:
            positions_m: (m,) int64, distinct; samples that were offered before are skipped.
        """
        positions_m = positions_m[self.untouched(positions_m)]
        if not self._rules:
            positions_m = positions_m[: self.missing].cpu()
            self._offered_n[torch.searchsorted(self._positions_n, positions_m)] = True
            self.taken += positions_m.tolist()
            return
        for position in positions_m.tolist():
            if not self.missing:
                return
            self.offer(position)

    def offer_first(self, positions: Iterable[int]) -> int | None:
        """Offer samples in their order until one joins, and return its position; None if none does."""
        return next((position for position in positions if self.offer(position)), None)

    def by_row(self, positions_n: Tensor) -> Callable[[int], bool]:
        """Return a function that offers a sample by its row, for greedy loops to call at each choice.

        Args:
            positions_n: (n,) int64, the positions of the loop's rows.
        """
        positions_n = positions_n.cpu()
        if torch.equal(positions_n, self._positions_n):
            # a search costs more than all the rest of a short greedy loop
            return lambda row: self._offer(row, int(positions_n[row]))
        rows_n = torch.searchsorted(self._positions_n, positions_n)
        return lambda row: self._offer(int(rows_n[row]), int(positions_n[row]))

    def untouched(self, positions_n: Tensor) -> Tensor:
        """Return a mask of the samples that were not offered yet: (n,) bool on the device of the positions."""
        rows_n = torch.searchsorted(self._positions_n, positions_n.cpu())
        return (~self._offered_n[rows_n]).to(positions_n.device)

    def open(self, positions_n: Tensor) -> Tensor:
        """Return a mask of the samples that were not refused, queries included: (n,) bool on the positions' device."""
        return ~torch.isin(positions_n, torch.tensor(self._refused, dtype=torch.int64, device=positions_n.device))
