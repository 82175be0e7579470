"""The README's pictures: there, small, described, without anything from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from docs.pictures import draw

ROOT = Path(__file__).parent.parent
OUTPUT = """\
campaign alfamix
$ alfamix round p
asked 5 queries · accuracy 0.1000
$ alfamix answer p --oracle answers.csv
answered 5 of 5 open questions
$ alfamix round p
  train      done       2.6 s  20 epochs
asked 5 queries · accuracy 0.9000 · new <champion>

campaign random
$ alfamix round q

accuracy on the test split
labels   alfamix   random
    50    0.7700   0.7700

492 s · report .work/demo/report.html
"""


def pictures() -> dict[str, str]:
    """Alternative text of each picture in the README, by path."""
    found = re.findall(r"!\[([^\]]*)\]\((docs/pictures/[^)]+)\)", (ROOT / "README.md").read_text("utf-8"))
    return {path: text for text, path in found}


def test_the_readme_shows_a_page_and_a_terminal_each_described_and_below_150_kb():
    assert set(pictures()) == {"docs/pictures/round.png", "docs/pictures/terminal.svg"}
    for path, text in pictures().items():
        assert len(text.split()) > 8
        assert (ROOT / path).stat().st_size < 150_000
    with Image.open(ROOT / "docs" / "pictures" / "round.png") as page:
        assert page.size == draw._SIZE


def test_the_pictures_show_the_code_as_it_is():
    digest = (ROOT / "docs" / "pictures" / "drawn-from.sha256").read_text("utf-8").strip()
    assert digest == draw._digest(), "run `make docs` where a browser is installed"


def test_the_numbers_in_the_alternative_text_are_those_of_the_terminal():
    svg = (ROOT / "docs" / "pictures" / "terminal.svg").read_text("utf-8")
    numbers = re.findall(r"\d\.\d{4}", pictures()["docs/pictures/terminal.svg"])
    assert len(numbers) == 3
    assert [number for number in numbers if number not in svg] == []


def test_the_terminal_shows_the_last_round_and_the_comparison_and_loads_nothing():
    svg = draw.terminal(OUTPUT)
    for picture in (svg, (ROOT / "docs" / "pictures" / "terminal.svg").read_text("utf-8")):
        assert set(re.findall(r"https?://[^\"\s]*", picture)) <= {"http://www.w3.org/2000/svg"}
        assert "@font-face" not in picture
        assert str(ROOT) not in picture
    words = svg.replace("&#160;", " ")
    assert "accuracy 0.9000 · new &lt;champion&gt;" in words
    assert "0.7700   0.7700" in words
    assert "0.1000" not in words
    assert "492 s" not in words


def test_without_a_browser_nothing_is_drawn_and_one_line_says_so(tmp_path: Path):
    code = (
        "from pathlib import Path; from docs.pictures import draw; "
        f"draw._DRAWN_FROM = Path({str(tmp_path / 'none')!r}); draw.main()"
    )
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pictures: skipped, because none of chromium")
    assert done.stdout.count("\n") == 1
