"""champion.json: the model that production serves."""

from pydantic import Field

from alfamix_core.records.record import Record


class Champion(Record):
    """The champion; without a round while there is none."""

    revision: int = Field(0, ge=0, description="number raised by each choice; 0 before the first")
    fence: int = Field(0, ge=0, description="fence of the lock under which it was written")
    round: int | None = Field(None, description="round whose model serves; None before the first promotion")
    model: str = Field("", description="digest of that round's model")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="its metrics on the test split when it was promoted"
    )
    before: tuple[int, ...] = Field((), description="rounds whose models served before it, the last one last")
    newest: int | None = Field(
        None, description="newest round whose promotion was applied, if that is another; no older promotion is applied"
    )
