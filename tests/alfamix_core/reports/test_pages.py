"""Both pages: everything, nothing, hostile words, and no request."""

import base64
import hashlib
import io
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from PIL import Image

from alfamix_core.records.champion import Champion
from alfamix_core.records.project import Project, StrategySettings
from alfamix_core.records.query import ChosenSample
from alfamix_core.records.round import Counts, Outcome, Promotion, Round, StageTotal
from alfamix_core.records.stage import Quarantined, StageLog, StageRun
from alfamix_core.reports import project_report, round_report
from alfamix_core.reports.charts import MapPoint
from alfamix_core.reports.curve import CurvePoint, point_of
from alfamix_core.reports.project_report import ProjectReport
from alfamix_core.reports.round_report import RoundReport
from alfamix_core.reports.thumbnails import thumbnail

CLASSES = ("cat", "dog", "owl")
NINE = datetime(2026, 3, 4, 9, 0, tzinfo=UTC)
VOID = {"meta", "img", "input", "br", "link", "hr"}


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("L", (8, 8), 128).save(out, "PNG")
    return thumbnail(out.getvalue())


def a_round(number: int, classes: tuple[str, ...] = CLASSES, **changes: object) -> Round:
    fields = {
        "number": number,
        "revision": 3,
        "fence": 1,
        "run_id": f"run-{number}",
        "state": "closed",
        "planned_at": NINE + timedelta(days=number),
        "seed": 17,
        "versions": {"samples": 3, "events": 1},
        "settings": Project(name="pets", classes=classes, budget=4),
        "champion": Champion(round=1),
        "counts": Counts(samples=1234, pool=1100, train=10 * number, test=14),
        "shards": 2,
        "digest": "4be81f0c22aa99",
        "outcome": Outcome(
            queries=4,
            strategy="alfamix",
            summary={"cap": 0.4, "candidates": 321},
            metrics={"accuracy": 0.5 + 0.1 * number, "macro_f1": 0.4 + 0.1 * number},
            promoted=number == 3,
            quarantined=2,
            stages={"train": StageTotal(seconds=61.0), "embed": StageTotal(seconds=30.5)},
            exported_at=NINE + timedelta(days=number, minutes=5),
        ),
    }
    return Round(**{**fields, **changes})


def a_full_round(classes: tuple[str, ...] = CLASSES, word: str = "near the boundary") -> RoundReport:
    rounds = [a_round(n, classes) for n in (3, 1, 2)]
    return RoundReport(
        round=rounds[0],
        promotion=Promotion(promoted=True, reason=f"accuracy 0.8000 against 0.7000; {word}", metrics={}),
        curve=tuple(point_of(r) for r in rounds),
        queries=tuple(
            ChosenSample(
                rank=rank,
                position=rank,
                sample_id=f"s{rank}",
                uri=f"s3://bucket/{word}/{rank}.png",
                score=None if rank == 3 else -0.125 * (rank + 1),
                suggestion=classes[rank % 2],
                confidence=0.625 if rank else None,
                explanation=word,
            )
            for rank in range(4)
        ),
        thumbnails={"s0": picture(), "s1": b"\x89PNG\r\n", "s2": b"neither"},
        label_counts={classes[0]: 31, classes[1]: 7},
        confusion=((6, 1, 0), (1, 4, 0), (0, 1, 1)),
        map_points=tuple(
            MapPoint(f"s{i}", kind, i * 0.5, -i, classes[i % 3])
            for i, kind in enumerate(["queried", "pool", "labelled", "pool"])
        ),
        candidate_scores=(-0.125, -0.25, -0.375, -0.5, -0.75),
        log=StageLog(
            runs=(
                StageRun(stage="train", seconds=61.0, rows=30, peak_memory_bytes=2_500_000_000, device="cpu"),
                StageRun(stage="embed", shard="0", seconds=10.0, rows=550),
                StageRun(stage="embed", shard="1", seconds=20.5, rows=550),
            ),
            quarantined=tuple(
                Quarantined(sample_id=f"q{i}", uri=f"s3://b/{i}", reason=f"broken {word}") for i in range(2)
            ),
        ),
    )


def a_full_project(classes: tuple[str, ...] = CLASSES) -> ProjectReport:
    rounds = tuple(a_round(n, classes) for n in (1, 2, 3))
    return ProjectReport(
        settings=rounds[0].settings,
        rounds=rounds,
        champion=Champion(round=3, metrics={"accuracy": 0.8}),
        open_queries=4,
        label_counts={n: {classes[0]: 10 * n, classes[1]: n} for n in (1, 2, 3)},
        campaigns={
            "alfamix": [point_of(r) for r in rounds],
            f"random {classes[2]}": [CurvePoint(1, 10, 0.5), CurvePoint(2, 20, 0.58)],
        },
        pages={3: "rounds/000003/report.html"},
    )


class Page(HTMLParser):
    """Reads a page and fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def pages() -> dict[str, str]:
    empty = a_round(1, outcome=None, state="planned", versions={}, counts=Counts(), champion=Champion())
    return {
        "full round": round_report.render(a_full_round()),
        "empty round": round_report.render(RoundReport(round=empty)),
        "full project": project_report.render(a_full_project()),
        "empty project": project_report.render(ProjectReport(settings=empty.settings)),
    }


@pytest.fixture(scope="module", params=["full round", "empty round", "full project", "empty project"])
def html(request):
    return pages()[request.param]


def test_every_tag_is_closed_and_every_id_is_there_once(html):
    ids = [attributes["id"] for _, attributes in Page(html).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_nothing_is_asked_of_the_network(html):
    for tag, attributes in Page(html).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "action", "poster", "xlink:href", "data"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:image/", "#", "rounds/")) or not value
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_page_forbids_itself_requests_and_foreign_scripts(html):
    policy = next(a["content"] for tag, a in Page(html).tags if a.get("http-equiv") == "Content-Security-Policy")
    script = re.search(r"<script>(.*?)</script>", html, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert html.count("<script") == 1


def test_links_within_the_page_lead_somewhere(html):
    page = Page(html)
    ids = {attributes.get("id") for _, attributes in page.tags}
    inner = [a["href"][1:] for tag, a in page.tags if tag == "a" and a["href"].startswith("#")]
    assert set(inner) <= ids


def test_every_picture_and_drawing_has_words_or_is_hidden(html):
    page = Page(html)
    assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")
    roles = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert all(attributes["aria-label"] for attributes in roles)


def test_no_value_leaks_as_python(html):
    assert not re.search(r"\b(None|nan|inf|True|False|Undefined)\b", Page(html).text)


def test_equal_reports_give_equal_bytes():
    assert pages() == pages()


def test_numbers_of_the_round_page_are_those_of_the_report():
    page = Page(round_report.render(a_full_round()))
    for words in [
        "It asks 4 queries, chosen by alfamix.",
        "an accuracy of 80.0% on the test split, +10.0 points since round 2.",
        "Promoted: accuracy 0.8000 against 0.7000; near the boundary.",
        "44",  # labels: 30 train, 14 test
        "train 30 · val 0 · test 14",
        "cap 0.4 · 321 candidates",
        "1,100 of 1,234 samples",
        "critical cap 0.125",
        "critical cap none",
        "62.5%",
        "1 of 3 classes have no label; most: cat (31).",
        "cat 85.7% 85.7% 85.7% 7",  # 6 of 7 predictions, 6 of 7 labels
        "embed 30.5 s 20.5 s 2 1,100 36",
        "train 1 min 01 s",
        "2.5 GB",
        "2 samples could not be read",
        "broken near the boundary",
    ]:
        assert words in page.text, words


def test_queries_are_best_first_whatever_order_they_come_in():
    report = a_full_round()
    shuffled = replace(report, queries=report.queries[::-1])
    assert round_report.render(shuffled) == round_report.render(report)


def test_thumbnail_that_is_no_picture_is_said_not_shown():
    html = round_report.render(a_full_round())
    assert html.count('<img src="data:image/') == 2
    assert Page(html).text.count("no preview") == 2


def test_marks_of_the_map_are_three_and_queried_ones_lead_to_their_card():
    page = Page(round_report.render(a_full_round()))
    drawn = [(tag, attributes.get("data-q")) for tag, attributes in page.tags if "data-c" in attributes]
    assert drawn == [("circle", None), ("circle", None), ("rect", None), ("path", "q-0")]
    assert "s0: cat (predicted), queried" in page.text
    assert "s2: owl, labelled" in page.text


def test_empty_round_says_what_is_missing_in_every_section():
    text = Page(pages()["empty round"]).text
    for words in [
        "This round is planned and has not asked anything yet.",
        "No test labels yet: give labelled samples the split test",
        "No scores of candidates were saved",
        "Nothing was asked yet",
        "No map: this round did not save coordinates",
        "No labels and no queries yet",
        "No timings yet: no stage has written its log.",
        "Unknown so far: no stage has written its log.",
        "No input files were recorded.",
    ]:
        assert words in text, words


def test_failed_round_says_why():
    failed = a_round(2, state="failed", reason="export: 12 samples could not be read", outcome=None)
    text = Page(round_report.render(RoundReport(round=failed))).text
    assert "This round failed: export: 12 samples could not be read." in text
    assert "Nothing was asked: the round failed before it was exported." in text


def test_round_that_found_too_few_samples_says_how_many_are_missing():
    outcome = a_round(1).outcome.model_copy(update={"queries": 3, "short_by": 1, "reason": "the pool is empty"})
    headline = round_report.headline(RoundReport(round=a_round(1, outcome=outcome)))
    assert headline[0] == "It asks 3 queries, chosen by alfamix; 1 fewer than the budget: the pool is empty."


def test_cold_start_is_named():
    outcome = a_round(1).outcome.model_copy(update={"strategy": "typiclust", "metrics": {}})
    headline = round_report.headline(RoundReport(round=a_round(1, outcome=outcome)))
    assert headline[0] == "It asks 4 queries, chosen by typiclust (the cold start of alfamix)."
    assert headline[1] == "No accuracy: this round's model was not evaluated on the 14 test labels."


def test_numbers_of_the_project_page_are_those_of_the_report():
    text = Page(project_report.render(a_full_project())).text
    for words in [
        "The accuracy on the test split went from 60.0% with 10 training labels to 80.0% with 30 in 3 rounds. "
        "The champion is the model of round 3.",
        "4 queries wait for an answer.",
        "3 ✓ closed 30 80.0% 70.0% 4 alfamix ★ champion 5 min 00 s 1 min 32 s",
        "alfamix 70.0% 3 60.0% 80.0% 30",
        "random owl 54.0% 2 50.0% 58.0% 20",
        "cat 10 20 30",
        "owl 0 0 0",
    ]:
        assert words in text, words


def test_round_names_link_to_their_pages():
    links = [a["href"] for tag, a in Page(project_report.render(a_full_project())).tags if tag == "a"]
    assert "rounds/000003/report.html" in links


def test_empty_project_says_how_to_start():
    assert "There is no round yet: alfamix round starts the first one." in Page(pages()["empty project"]).text


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "'--></title></svg>{{ 7 * 7 }}{% raw %}",
)


@pytest.mark.parametrize(
    "render",
    [
        lambda: round_report.render(a_full_round(HOSTILE, word="</script><b onclick='x'>& \"")),
        lambda: project_report.render(a_full_project(HOSTILE)),
    ],
    ids=["round", "project"],
)
def test_hostile_words_stay_words(render):
    html = render()
    page = Page(html)
    assert html.count("<script") == 1
    assert "49" not in re.findall(r"title></svg>(\S+)", page.text)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not any(attributes.get("src") == "x" for _, attributes in page.tags)
    for name in HOSTILE:
        assert name in page.text


def test_thousands_of_samples_make_a_page_that_still_loads():
    """500 queries with pictures and 4,000 places on the map: 300 pictures, below 5 MB."""
    report = a_full_round()
    image = picture()
    html = round_report.render(
        replace(
            report,
            queries=tuple(report.queries[1].model_copy(update={"rank": i, "sample_id": f"s{i}"}) for i in range(500)),
            thumbnails={f"s{i}": image for i in range(500)},
            map_points=tuple(MapPoint(f"s{i}", "pool", i % 61, i % 67, "cat") for i in range(4000)),
        )
    )
    assert html.count("<img ") == round_report.MAX_THUMBNAILS
    assert "200 more are in the round" in html
    assert len(html) < 5_000_000


def test_many_classes_get_their_confusions_without_a_matrix():
    classes = tuple(f"class {i}" for i in range(40))
    matrix = tuple(tuple(3 if i == j else int(j == (i + 1) % 40) for j in range(40)) for i in range(40))
    report = replace(a_full_round(), round=a_round(3, classes), confusion=matrix)
    html = round_report.render(report)
    assert 'class="matrix"' not in html
    assert "class 0 class 1 1 25.0%" in Page(html).text


def test_more_quarantined_samples_than_shown_are_counted():
    quarantined = tuple(Quarantined(sample_id=f"q{i}", uri="s3://b/x", reason="empty") for i in range(70))
    html = round_report.render(replace(a_full_round(), log=StageLog(runs=(), quarantined=quarantined)))
    assert "70 samples could not be read" in html
    assert "The first 50 are shown; 20 more" in html


def test_score_is_read_in_the_words_of_its_strategy():
    report = a_full_round()
    outcome = report.round.outcome.model_copy(update={"strategy": "somebodys_own"})
    text = Page(round_report.render(replace(report, round=a_round(3, outcome=outcome)))).text
    assert "score -0.125" in text
    assert "critical cap" not in text


def test_settings_that_are_not_the_default_are_told_apart():
    settings = Project(name="pets", classes=CLASSES, strategy=StrategySettings(name="margin"))
    page = Page(project_report.render(ProjectReport(settings=settings)))
    rows = re.findall(r"strategy\.name (\S+) (default)?", page.text)
    assert rows == [("margin", "")]
    assert "budget 100 default queries per round" in page.text
