"""evaluation.json: the quality of the round's model beside the champion's, and the proposed promotion."""

from pydantic import Field

from alfamix_core.records.record import Record
from alfamix_core.records.round import Promotion

FILE = "evaluation.json"


class ClassMetrics(Record):
    """One class on the test split."""

    name: str = Field(description="name of the class")
    precision: float = Field(description="share of the samples predicted as the class that belong to it")
    recall: float = Field(description="share of the class's samples that are predicted as it")
    f1: float = Field(description="harmonic mean of precision and recall")
    support: int = Field(ge=0, description="number of test samples of the class")


class Evaluation(Record):
    """The whole of evaluation.json."""

    classes: tuple[str, ...] = Field(description="names of the classes, in the order of the model's outputs")
    metrics: dict[str, float] = Field(description="metrics of the round's model; empty without test labels")
    audit: dict[str, float] = Field(default_factory=dict, description="metrics of the same model on the audit split")
    agreement: float | None = Field(
        None, ge=0, le=1, description="share of the compared samples for which the champion predicts the same"
    )
    per_class: tuple[ClassMetrics, ...] = Field((), description="metrics of each class; empty without test labels")
    confusion: tuple[tuple[int, ...], ...] = Field((), description="sample counts; row = label, column = prediction")
    promotion: Promotion = Field(description="proposal whether the model becomes the champion")
    temperature: float = Field(
        1.0,
        gt=0,
        description="temperature that calibrates the model on validation, else test, else audit labels; 1 without any",
    )
    epochs: int = Field(0, description="number of training epochs")
    stopped_because: str = Field("", description="human-readable reason for which training stopped")
