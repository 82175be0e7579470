"""The model folder: model.json beside model.safetensors."""

from typing import Literal

from pydantic import Field

from alfamix_core.records.project import ImageSettings, ModelSettings
from alfamix_core.records.record import Record

CARD_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"


class PixelStatistics(Record):
    """The numbers by which pixels from 0 to 1 are normalised, one per channel or one for all."""

    mean: tuple[float, ...] = Field(min_length=1, max_length=3, description="subtracted from the pixels")
    std: tuple[float, ...] = Field(min_length=1, max_length=3, description="divisor after that, above 0")


class FeatureScaling(Record):
    """How the output of a frozen encoder becomes the embedding that head and strategies see."""

    kind: Literal["l2", "standardised"] = Field(
        description="l2: each row divided by its length; standardised: each column by mean and std"
    )
    mean: tuple[float, ...] = Field((), description="subtracted from the columns; only for standardised")
    std: tuple[float, ...] = Field((), description="divisor after that, above 0; only for standardised")


class ModelCard(Record):
    """What the weights belong to; a folder whose card differs from the project's settings is refused."""

    format: Literal[1] = Field(1, description="version of this format")
    classes: tuple[str, ...] = Field(description="names of the classes, in the order of the outputs")
    model: ModelSettings = Field(description="settings of the model that the weights belong to")
    image: ImageSettings = Field(description="settings by which images are read")
    pixels: PixelStatistics | None = Field(
        None, description="normalisation of the pixels; null: ImageNet's, as for every model without this field"
    )
    features: FeatureScaling | None = Field(
        None, description="scaling of the encoder's output; null: the embedding is that output"
    )
    embedding_size: int = Field(ge=1, description="embedding size D")
    round: int = Field(ge=0, description="round that trained it")
    trained: bool = Field(description="False: initial weights, because fewer than two classes have a label")
    epochs: int = Field(0, ge=0, description="number of training epochs")
    stopped_because: str = Field("", description="human-readable reason for which training stopped")
