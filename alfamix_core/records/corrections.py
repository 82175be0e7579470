"""withdrawn/<batch>.jsonl and released/<batch>.jsonl: what a person withdraws or releases."""

from pydantic import Field

from alfamix_core.records.record import Moment, Record


class Withdrawn(Record):
    """A sample that must not be used from the next round on, permanently."""

    sample_id: str = Field(description="id of the sample")
    reason: str = Field("", description="reason in the person's words")
    time: Moment = Field(description="moment of the withdrawal, with its time zone")


class Released(Record):
    """A repaired sample: rounds after this one may read it again."""

    sample_id: str = Field(description="id of the sample")
    round: int = Field(ge=1, lt=2**31, description="last round whose quarantine is over")
    time: Moment = Field(description="moment of the release, with its time zone")
