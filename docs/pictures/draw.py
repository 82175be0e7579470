"""Draw the README's two pictures from the demo: a round's page and the terminal.

    python -m docs.pictures.draw

The demo runs in .work/pictures. The pictures are drawn again only if the page's templates, the progress, the demo or
this file have changed, because times and dates differ from run to run. To draw them anyway, delete drawn-from.sha256.
"""

import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
_WORK = ROOT / ".work" / "pictures"
_SHOWN = (
    "alfamix_core/reports/templates",
    "docs/pictures/draw.py",
    "pipelines/demo.py",
    "pipelines/engines/progress.py",
)
_DRAWN_FROM = HERE / "drawn-from.sha256"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_SIZE = (1180, 1526)  # CSS pixels; the height ends below the first row of queries
_COLOURS = 256
_COLUMNS = 88
_TERMINAL = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
text {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def main() -> None:
    """Draw both pictures, or say in one line why not."""
    digest = _digest()
    if _DRAWN_FROM.exists() and _DRAWN_FROM.read_text("utf-8").strip() == digest:
        print("pictures: up to date")
        return
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        print(f"pictures: skipped, because none of {', '.join(_BROWSERS)} is installed")
        return
    output = _demo()
    (HERE / "terminal.svg").write_text(terminal(output), "utf-8")
    (HERE / "round.png").write_bytes(page(browser, _WORK / "alfamix"))
    _DRAWN_FROM.write_text(f"{digest}\n", "utf-8")


def _digest() -> str:
    """Return the SHA-256 of the code that the pictures show."""
    total = hashlib.sha256()
    for name in _SHOWN:
        path = ROOT / name
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix not in (".pyc", ""))
        for file in files:
            total.update(file.read_bytes())
    return total.hexdigest()


def _demo() -> str:
    """Run the demo from scratch and return its output, with paths relative to the repository."""
    shutil.rmtree(_WORK, ignore_errors=True)
    command = [sys.executable, "-m", "pipelines.demo", str(_WORK)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.replace(f"{ROOT}/", "").replace(".work/pictures", ".work/demo")


def terminal(output: str) -> str:
    """Return the end of the demo as SVG, without fonts from elsewhere: ALFA-Mix's last round, and the comparison.

    Args:
        output: everything that the demo printed.
    """
    first, _, rest = output.partition("\ncampaign random\n")
    rounds = first[first.rindex("$ alfamix answer") :].rstrip("\n")
    table = rest[rest.index("accuracy on the test split") :].partition("\n\n")[0]
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), highlight=False, markup=False)
    for line in f"$ make demo\n…\n{rounds}\n…\n\n{table}".splitlines():
        text = Text(line)
        text.highlight_regex(r"^\$ .*", "bold")
        text.highlight_regex(r"^\$|^…$", "dim")
        text.highlight_regex(r"\bdone\b", "green")
        text.highlight_regex(r"^asked .*|^ *mean .*", "bold")
        console.print(text, no_wrap=True, crop=True)
    svg = console.export_svg(title="make demo", code_format=_TERMINAL, unique_id="terminal")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def page(browser: str, project: Path) -> bytes:
    """Return the upper part of the page of a project's last round, as PNG with few colours."""
    with tempfile.TemporaryDirectory() as folder:
        html, png = Path(folder) / "round.html", Path(folder) / "round.png"
        report = [sys.executable, "-m", "pipelines.cli", "report", str(project), "--round", "5", "--to", str(html)]
        subprocess.run(report, check=True, stdout=subprocess.DEVNULL)
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        options += ["--hide-scrollbars", f"--user-data-dir={folder}/profile", f"--screenshot={png}"]
        options += [f"--window-size={_SIZE[0]},{_SIZE[1]}", html.as_uri()]
        subprocess.run([browser, *options], check=True, capture_output=True)
        out = io.BytesIO()
        with Image.open(png) as shot:
            shot.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
