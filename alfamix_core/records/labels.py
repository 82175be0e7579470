"""labels/<batch>.jsonl: annotators' answers, as events that are only ever added."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from alfamix_core.records.record import Moment, Record


class LabelEvent(Record):
    """One answer of one annotator about one sample.

    Equal events count once. If an annotator answers about a sample again, the last event by time counts.
    """

    event_id: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="unique id, never used again"
    )
    sample_id: str = Field(description="id of a sample of any drop")
    kind: Literal["label", "skip", "cannot_label", "withdraw"] = Field(
        description="kind of answer; withdraw takes the annotator's earlier answer back"
    )
    label: str | None = Field(None, description="class, for kind label alone")
    annotator: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="name of the annotator"
    )
    round: int = Field(0, ge=0, lt=2**31, description="round that asked; 0 without a question")
    time: Moment = Field(description="moment of the answer, with its time zone")

    @model_validator(mode="after")
    def _label_with_kind_label_alone(self) -> Self:
        if (self.kind == "label") != (self.label is not None):
            raise ValueError(f'kind "{self.kind}" {"needs a" if self.kind == "label" else "has no"} label')
        return self

    @property
    def order(self) -> tuple[datetime, str]:
        """What decides which of an annotator's events is the last."""
        return (self.time, self.event_id)
