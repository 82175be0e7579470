"""Links and paths in the documents lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("[a-z]*/**/README.md"))
)
PATH = r"`((?:alfamix_core|components|pipelines|monitoring|deploy|tests|benchmarks|docs|Dockerfiles)/[\w./-]*)`"

USUAL_WORDS = {
    r"anew": "again, or from scratch",
    r"at once": "immediately, or together",
    r"for ever": "permanently",
    r"in vain": "to no effect",
    r"who(so)?ever|anybody": "the caller, or the user",
    r"goes on|gone on|going on": "continues, or resumes",
    r"reckons?|reckoned": "compute",
    r"mends?|mended": "fix",
}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_and_path_leads_somewhere(page: Path):
    text = (ROOT / page).read_text("utf-8")
    broken = [path for path in re.findall(PATH, text) if not (ROOT / path).exists()]
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if target.startswith("https://"):
            continue
        linked = (ROOT / page).parent / path if path else ROOT / page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [*PAGES, Path("Makefile"), Path("monitoring/rules/alerts.yml")], ids=str)
def test_a_page_uses_the_usual_word(page: Path):
    text = (ROOT / page).read_text("utf-8")
    unusual = {
        f"{found[0]!r}: write {usual}"
        for word, usual in USUAL_WORDS.items()
        for found in re.finditer(rf"\b(?:{word})\b", text, re.IGNORECASE)
    }
    assert unusual == set()


def test_every_page_can_be_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text("utf-8") + (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert {page.name for page in PAGES if page.parent == Path("docs") and page.name not in readme} == set()


def test_a_stranger_finds_the_file_to_change_in_three_steps():
    """README -> architecture.md -> the file: the table names one existing place for each common change."""
    assert "docs/architecture.md" in (ROOT / "README.md").read_text("utf-8")
    table = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("## Where to change what")[2]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 12
    for change, begins, *_ in rows:
        place = re.match(r"`([^`]+)`", begins)
        assert place, f"{change}: no place to begin"
        assert (ROOT / place[1]).exists(), f"{change}: {place[1]}"
