from datetime import UTC, datetime

import pytest

from alfamix_core.records.query import Question
from tests.alfamix_core.project.conftest import made, opened, place  # noqa: F401  # fixtures


@pytest.fixture
def noon():
    return datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def question(noon):
    """Make an open question."""

    def question(sample_id, number=1, rank=0, **fields):
        defaults = {"uri": f"file:///{sample_id}.png", "asked_at": noon}
        return Question(sample_id=sample_id, round=number, rank=rank, **(defaults | fields))

    return question
