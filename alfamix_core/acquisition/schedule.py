"""The schedule of caps of ALFA-Mix. A cap a bounds the step by a/√D of the distance to the anchor."""

import math

CAPS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""The schedule of the closed form."""

DRAWN_CAPS = tuple(step / 32 for step in range(1, 33))
"""The schedule of the released code for ratios that are learned; a cap bounds every coordinate's ratio."""

_MOST_CAPS = 1_000


def schedule(first: float | None, step: float | None, last: float | None, *, drawn: bool) -> tuple[float, ...]:
    """Return the caps, ascending.

    Args:
        first: First cap, > 0; None for the default, as for the other two.
        step: Difference between a cap and the next, > 0.
        last: Bound of the caps, >= first.
        drawn: Whether ratios are drawn, which decides the defaults.

    Raises:
        ValueError: The schedule does not begin above 0 and grow, or has more than 1,000 caps.
    """
    usual = DRAWN_CAPS if drawn else CAPS
    if first is None and step is None and last is None:
        return usual
    first, last = usual[0] if first is None else first, usual[-1] if last is None else last
    step = usual[0] if step is None else step
    if not (0 < first <= last and step > 0 and math.isfinite(last)):
        raise ValueError(f"caps must begin above 0 and grow, not from {first:g} by {step:g} to {last:g}")
    steps = (last - first) / step + 1e-9  # inf where the step is next to nothing
    if steps >= _MOST_CAPS:
        raise ValueError(f"there must be at most {_MOST_CAPS} caps, not {steps + 1:.0f}")
    return tuple(first + number * step for number in range(math.floor(steps) + 1))
