"""evaluation.json: how good the round's model is, beside the champion's, and the promotion that is proposed."""

from pydantic import Field

from alfamix_core.records.record import Record
from alfamix_core.records.round import Promotion

FILE = "evaluation.json"


class ClassMetrics(Record):
    """One class on the test split."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int = Field(ge=0, description="test samples of the class")


class Evaluation(Record):
    """The whole of evaluation.json."""

    classes: tuple[str, ...]
    metrics: dict[str, float] = Field(description="of the round's model; empty without test labels")
    audit: dict[str, float] = Field(default_factory=dict, description="of the same model on the audit split")
    agreement: float | None = Field(
        None, ge=0, le=1, description="share of the samples compared of which the champion says the same"
    )
    per_class: tuple[ClassMetrics, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = Field((), description="row = label, column = prediction")
    promotion: Promotion
    temperature: float = Field(
        1.0,
        gt=0,
        description="that calibrates the model on validation, else test, else audit labels; 1 without any",
    )
    epochs: int = Field(0, description="of the training")
    stopped_because: str = ""
