"""The queries folder: what ``select`` chose and what the report shows of it.

queries.jsonl       one ChosenSample per line, best first
thumbnails/<id>.webp
selection.json      the rest
stage.json
"""

from typing import Literal

from pydantic import Field

from alfamix_core.records.record import Record

QUERIES_FILE = "queries.jsonl"
SELECTION_FILE = "selection.json"
THUMBNAILS = "thumbnails"


class PlacedSample(Record):
    """A sample on the map."""

    sample_id: str = Field(description="id of the sample")
    kind: Literal["pool", "labelled", "queried"] = Field(description="state of the sample in the round")
    x: float = Field(description="first coordinate")
    y: float = Field(description="second coordinate")
    name: str = Field("", description="class: the label of a labelled sample, else what the model predicts")


class Selection(Record):
    """selection.json."""

    strategy: str = Field(description="strategy that chose: the project's, or its cold start")
    short_by: int = Field(ge=0, description="number of queries missing from the budget")
    reason: str = Field(description="human-readable reason for missing queries; empty when none are missing")
    summary: dict[str, float | int] = Field(default_factory=dict, description="the strategy's own summary")
    candidate_scores: tuple[float, ...] = Field((), description="scores of the samples among which was chosen; finite")
    embedding_distance: float | None = Field(
        None, ge=0, description="distance of the pool's new samples from the labelled ones, see ``evaluation.drift``"
    )
    predicted_shares: dict[str, float] = Field(
        default_factory=dict, description="shares of the pool, by predicted class; empty while the model is untrained"
    )
    map: tuple[PlacedSample, ...] = Field((), description="principal components of the embeddings")
