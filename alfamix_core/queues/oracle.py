"""The oracle: an annotator who knows the answers, for simulations; it answers through the same label events."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence

from alfamix_core.errors import InputError
from alfamix_core.project.inbox.samples import named
from alfamix_core.records.labels import LabelEvent
from alfamix_core.records.manifest import uniform
from alfamix_core.records.query import Question


def read_truth(data: bytes, where: str, classes: Sequence[str]) -> dict[str, str]:
    """Return the class of each sample from a CSV with the columns sample_id and label.

    Raises:
        InputError: Another header, a class that the project does not have, or a sample with two classes.
    """
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        if set(reader.fieldnames or ()) != {"sample_id", "label"}:
            raise InputError(f"{where} must have the columns sample_id and label, not {reader.fieldnames}")
        known = frozenset(classes)
        truth: dict[str, str] = {}
        for row in reader:
            if row["label"] not in known:
                raise InputError(
                    f'{where} line {reader.line_num}: label "{row["label"]}" is not a class; '
                    f"the classes are {named(known)}"
                )
            if truth.setdefault(row["sample_id"], row["label"]) != row["label"]:
                raise InputError(f'{where} line {reader.line_num}: sample "{row["sample_id"]}" has two labels')
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where} must be UTF-8 CSV: {error}") from None
    return truth


def answer(
    questions: Iterable[Question],
    truth: Mapping[str, str],
    classes: Sequence[str],
    *,
    seed: int,
    noise: float = 0.0,
    skip: float = 0.0,
) -> list[LabelEvent]:
    """Answer open questions; the same questions and seed give the same events, whatever their order.

    Args:
        questions: Open questions; those without a known answer stay open.
        truth: Class of each sample.
        classes: Classes of the project; a wrong answer is any of the others, with equal probability.
        seed: Seed of the mistakes.
        noise: Share of wrong answers, in [0, 1].
        skip: Share of questions that are skipped, in [0, 1].
    """
    events = []
    for question in sorted(questions, key=lambda question: (question.round, question.rank)):
        if question.sample_id not in truth:
            continue
        skipped, wrong, other = _uniforms(seed, question)
        label: str | None = truth[question.sample_id]
        if skipped < skip:
            label = None
        elif wrong < noise and len(classes) > 1:
            others = [name for name in classes if name != label]
            label = others[int(other * len(others))]
        events.append(
            LabelEvent(
                event_id=f"oracle-{question.round}-{question.sample_id}",
                sample_id=question.sample_id,
                kind="label" if label is not None else "skip",
                label=label,
                annotator="oracle",
                round=question.round,
                time=question.asked_at,
            )
        )
    return events


def batch_name(events: Sequence[LabelEvent]) -> str:
    """Return a name for a batch of answers, made of their content: the same answers are the same batch."""
    return "oracle-" + hashlib.sha256(b"".join(event.json_line() for event in events)).hexdigest()[:16]


def _uniforms(seed: int, question: Question) -> tuple[float, float, float]:
    """Return three numbers in [0, 1) that belong to (seed, round, sample)."""
    text = f"{seed}/{question.round}/{question.sample_id}"
    return uniform(text, 0), uniform(text, 1), uniform(text, 2)
