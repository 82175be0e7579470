"""The queries and questions of a round: what it asks people, and why."""

from pydantic import AwareDatetime, Field

from alfamix_core.records.record import Record


class ChosenSample(Record):
    """A line of the queries artifact: a sample that ``select`` chose, and why."""

    rank: int = Field(ge=0, description="0 is the best")
    position: int | None = Field(None, ge=0, description="in the round's snapshot; none for the audit reserve")
    sample_id: str
    uri: str
    score: float | None = Field(None, description="higher is more informative; None for -inf")
    suggestion: str = Field(description="the class that the round's model predicts; empty before there is one")
    confidence: float | None = Field(None, description="the model's probability of it")
    audit: bool = Field(False, description="from the audit reserve, not chosen by a strategy")
    explanation: str = Field("", description="why this sample, in words")


class Question(Record):
    """A line of a round's questions: one question to people."""

    sample_id: str
    uri: str
    round: int = Field(ge=1)
    rank: int = Field(ge=0)
    suggestion: str = ""
    audit: bool = Field(False, description="from the audit reserve: its answer is for testing alone")
    thumbnail: str = Field("", description="key below the project's uri")
    asked_at: AwareDatetime
