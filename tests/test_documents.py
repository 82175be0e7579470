"""Links and paths in the documents lead somewhere."""

import ast
import functools
import re
from pathlib import Path

import pytest

from alfamix_core.records.project import Project
from alfamix_core.storage import access, open_store
from components.stages import STAGES
from pipelines.engines import containers

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


@functools.cache
def own_variables() -> set[str]:
    """The names of our environment variables in the code: a constant, or one put together from a prefix."""
    files = (path for room in ("alfamix_core", "components", "pipelines") for path in (ROOT / room).rglob("*.py"))
    trees = [ast.parse(path.read_text("utf-8")) for path in files]
    constants = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    named = (value for value in (*constants, *vars(access).values()) if isinstance(value, str))
    return {name for name in named if re.fullmatch(r"(ALFAMIX|KF_PIPELINES)(_[A-Z0-9]+)+", name)}


def test_the_table_of_environment_variables_is_complete():
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    rows = text[text.index("| variable | meaning |") :].partition("\n\n")[0]
    assert set(re.findall(r"`((?:ALFAMIX|KF_PIPELINES)_\w+)`", rows)) == own_variables()


@pytest.mark.parametrize("stage", STAGES)
def test_the_page_on_images_names_every_variable_that_a_container_sees(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page = (ROOT / "docs" / "images.md").read_text("utf-8")
    known = {*own_variables(), *containers._TAKEN, *containers._TAKEN_FOR_S3, *containers._PROXIES}
    for name in known:
        monkeypatch.setenv(name, "1")
    settings = Project(name="birds", classes=("cat", "dog"), data_prefixes=("s3://data/birds",))
    seen = containers.environment(open_store(tmp_path.as_uri()), settings, stage)
    keys = {access.SECRET_ACCESS_KEY, access.SESSION_TOKEN}  # "the keys", in the page's words
    assert {name for name in seen if f"`{name}`" not in page} <= keys


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


def test_the_page_on_benchmarks_names_every_row():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    table = page[page.index("| row |") :].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in row.split("|")[1].split()]
    source = (ROOT / "benchmarks" / "acquisition.py").read_text("utf-8")
    rows = ast.parse(source[source.index("ROWS: dict") :].partition("\n}")[0] + "\n}").body[0]
    assert isinstance(rows, ast.AnnAssign)
    assert isinstance(rows.value, ast.Dict)
    assert sorted(named) == sorted(ast.literal_eval(key) for key in rows.value.keys if key is not None)
