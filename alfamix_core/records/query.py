"""The queries and questions of a round: what it asks, and why."""

from pydantic import AwareDatetime, Field

from alfamix_core.records.record import Record


class ChosenSample(Record):
    """A line of the queries artifact: a sample that ``select`` chose, and why."""

    rank: int = Field(ge=0, description="rank among the round's queries; 0 is the best")
    position: int | None = Field(None, ge=0, description="position in the round's snapshot; none for the audit reserve")
    sample_id: str = Field(description="id of the sample")
    uri: str = Field(description="absolute URI of the sample")
    score: float | None = Field(None, description="score of the strategy, higher is more informative; None for -inf")
    suggestion: str = Field(description="class that the round's model predicts; empty without a model")
    confidence: float | None = Field(None, description="model's probability of that class")
    audit: bool = Field(False, description="whether it comes from the audit reserve instead of a strategy")
    explanation: str = Field("", description="human-readable reason for the choice")


class Question(Record):
    """A line of a round's questions: one question to annotators."""

    sample_id: str = Field(description="id of the sample")
    uri: str = Field(description="absolute URI of the sample")
    round: int = Field(ge=1, description="round that asks")
    rank: int = Field(ge=0, description="rank among the round's queries; 0 is the best")
    suggestion: str = Field("", description="class that the round's model predicts; empty without a model")
    audit: bool = Field(False, description="whether it comes from the audit reserve: its answer is for testing alone")
    thumbnail: str = Field("", description="key of the thumbnail below the project's uri; empty without one")
    asked_at: AwareDatetime = Field(description="moment at which the round was planned")
