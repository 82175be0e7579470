"""The README's commands, as a newcomer types them, on photographs of mixed sizes."""

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The commands of the README's walk through a project of one's own, without their remarks."""
    block = re.search(r"## Your own images.*?```console\n(.*?)```", README, re.DOTALL)
    assert block
    lines = [line.removeprefix("$ ") for line in block[1].splitlines() if line.startswith("$ ")]
    return [" ".join(shlex.split(line, comments=True)) for line in lines]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """JPEG files of 40 to 360 pixels: a class is a colour; labelled/<class>/ and new/."""
    colours = {"robin": (200, 60, 40), "wren": (120, 90, 50), "crow": (30, 30, 40)}
    for name, colour in colours.items():
        for index in range(16):
            size = (40 + 20 * index, 360 - 15 * index)
            picture = Image.new("RGB", size, (210, 220, 235))
            draw = ImageDraw.Draw(picture)
            draw.ellipse((size[0] // 4, size[1] // 4, 3 * size[0] // 4, 3 * size[1] // 4), fill=colour)
            draw.line((0, 10 * index, size[0], 5), fill=(90, 70, 10), width=3)
            folder = tmp_path / "photos" / ("new" if index % 2 else f"labelled/{name}")
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{name}-{index}.jpg" if index % 2 else folder / f"{index}.jpg", quality=85)
    return tmp_path / "photos"


def test_the_readmes_walk_works_from_init_to_report(tmp_path: Path, photos: Path, environment: dict[str, str]):
    assert len(list(photos.rglob("*.jpg"))) == 48
    bin_folder = str(Path(sys.executable).parent)
    path = {**environment, "PATH": f"{bin_folder}:{environment['PATH']}"}
    outputs = {}
    for command in commands():
        if command.startswith("source "):
            continue
        assert command.startswith("alfamix ")
        if command.startswith("alfamix labels import"):
            _fill_in(tmp_path / "questions.csv")
        done = subprocess.run(shlex.split(command), cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs[command] = done.stdout
    assert outputs["alfamix labels import birds questions.csv"] == "imported 12 answers\n"
    settings = json.loads((tmp_path / "birds" / "project.json").read_text(encoding="utf-8"))
    assert settings["model"]["backbone"] == "resnet18"
    assert (tmp_path / "birds.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def _fill_in(path: Path) -> None:
    """Answer every question as its file's name says, as a person would in a spreadsheet."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    originals = {picture.read_bytes(): picture for picture in (path.parent / "photos" / "new").glob("*.jpg")}
    for row in rows:
        copied = Path(row["uri"].removeprefix("file://"))
        row["label"] = originals[copied.read_bytes()].name.split("-")[0]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_the_two_commands_of_the_readme_are_targets_and_ci_calls_the_second():
    block = README.split("```")[1]
    targets = re.findall(r"^make (\w+)", block, re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in makefile for target in targets)
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_page_of_settings_is_fresh():
    from alfamix_core.records.settings_table import markdown

    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == markdown(), "run `make docs`"
