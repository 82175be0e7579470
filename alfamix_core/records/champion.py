"""champion.json: which model production serves."""

from pydantic import Field

from alfamix_core.records.record import Record


class Champion(Record):
    """The champion, or that there is none yet (``round`` None)."""

    revision: int = Field(0, ge=0, description="raised by each choice; 0 before the first")
    fence: int = Field(0, ge=0)
    round: int | None = None
    model: str = Field("", description="digest of the model of that round")
    metrics: dict[str, float] = Field(default_factory=dict, description="on the test split, when it was promoted")
    before: tuple[int, ...] = Field((), description="the rounds whose models served before it, the last one last")
    newest: int | None = Field(None, description="the newest round whose promotion was applied; none comes back")
