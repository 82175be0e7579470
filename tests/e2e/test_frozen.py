"""A campaign on a frozen encoder opens each image once."""

import pytest

from alfamix_core.project import rounds
from alfamix_core.storage import file_uri, open_store
from tests.e2e.conftest import INIT, SMALL, produced, settings


@pytest.mark.slow
def test_the_second_round_opens_no_image(alfamix, digits, tmp_path):
    """``bytes_read`` counts the images that a stage opens; select opens those of its queries, for the thumbnails."""
    project = tmp_path / "project"
    alfamix("init", project, *INIT, *settings(*SMALL, "model.encoder=frozen"))
    alfamix("drop", project, digits)
    alfamix("round", project)
    alfamix("answer", project, "--oracle", digits.parent / "answers.csv")
    alfamix("round", project)
    asked = [{line["sample_id"] for line in produced(project, number, "queries")} for number in (1, 2)]
    assert [len(queries) for queries in asked] == [20, 20]
    assert not asked[0] & asked[1]
    first, second = (rounds.read(open_store(file_uri(project)), number)[0].outcome.stages for number in (1, 2))
    for stage in ("train", "embed", "evaluate"):
        assert first[stage].bytes_read > 0
        assert second[stage].bytes_read == 0
