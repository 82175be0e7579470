"""withdrawn/<batch>.jsonl and released/<batch>.jsonl: what a person takes back about samples."""

from pydantic import Field

from alfamix_core.records.record import Moment, Record


class Withdrawn(Record):
    """A sample that must not be used any more, from the next round on, for ever."""

    sample_id: str
    reason: str = ""
    time: Moment


class Released(Record):
    """A sample that was repaired: what rounds up to this one could not read may be read again."""

    sample_id: str
    round: int = Field(ge=1, lt=2**31, description="the last round whose quarantine is over")
    time: Moment
