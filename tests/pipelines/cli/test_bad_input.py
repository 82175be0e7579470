"""Bad input: one clear line, exit status 2, nothing changed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alfamix_core.acquisition import registry, strategies

ROOT = Path(__file__).parents[3]
KNOWN = ", ".join(strategies.names())


@pytest.fixture
def refused(birds):
    """Run a command that must be refused; return the one line it says, less its beginning."""

    def refused(*arguments):
        before = birds.tree()
        result = birds.alfamix(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("alfamix: ")
        assert result.stderr.endswith("\n")
        assert result.stderr.count("\n") == 1
        assert birds.tree() == before
        return result.stderr.removeprefix("alfamix: ").removesuffix("\n")

    return refused


CONFIG = [
    ({"colour": "red"}, 'unknown field "colour"'),
    ({"model": {"depth": 3}}, 'unknown field "model.depth"'),
    ({"budget": "ten"}, 'field "budget" must be a valid integer, not "ten"'),
    ({"budget": 0}, 'field "budget" must be greater than or equal to 1, not 0'),
    ({"classes": ["cat", "dog", "cat"]}, 'class "cat" is named twice (items 1 and 3)'),
]


@pytest.mark.parametrize(("fields", "message"), CONFIG)
@pytest.mark.parametrize("command", [("round",), ("round", "--plan"), ("status",), ("drop", "new")])
def test_a_config_that_was_edited_wrongly_is_found_by_every_command(birds, refused, fields, message, command):
    birds.configure(**fields)
    name, *rest = command
    assert refused(name, "birds", *rest) == f"project.json: {message}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--classes", "cat,dog,cat"), 'the project: class "cat" is named twice (items 1 and 3)'),
        (("--budget", "0"), 'the project: field "budget" must be greater than or equal to 1, not 0'),
        (("--set", "colour=red"), 'the project: unknown field "colour"'),
        (
            ("--set", "training.max_epochs=many"),
            'the project: field "training.max_epochs" must be a valid integer, not "many"',
        ),
        (
            ("--set", "training.max_epochs"),
            "--set training.max_epochs: must be NAME=VALUE, such as training.max_epochs=30",
        ),
        (("--set", "budget.x=1"), "--set budget.x=1: budget is not a section"),
        (("--strategy", "xyz"), f'strategy.name: unknown strategy "xyz"; known: {KNOWN}'),
        (
            ("--strategy", "random", "--set", 'strategy.parameters={"depth": 2}'),
            'strategy "random": unknown parameter "depth"; it has none',
        ),
    ],
)
def test_a_project_that_cannot_be_is_not_made(refused, options, message):
    classes = () if "--classes" in options else ("--classes", "cat,dog")
    assert refused("init", "other", *classes, *options) == message


def test_a_project_is_not_made_twice(birds, refused):
    said = refused("init", "birds", "--classes", "cat,dog")
    assert said == f"{birds.project.as_uri()} is a project already; edit its project.json instead"


@pytest.mark.parametrize(
    "command",
    [
        ("round",),
        ("status",),
        ("drop", "new"),
        ("report",),
        ("queue", "export", "x.csv"),
        ("queue", "list"),
        ("labels", "import", "new"),
    ],
)
def test_a_place_without_a_project_is_said_to_have_none(birds, refused, command):
    words = [command[0], "nowhere", *command[1:]] if command[0] not in ("queue", "labels") else None
    words = words or [*command[:2], "nowhere", *command[2:]]
    nowhere = (birds.folder / "nowhere").as_uri()
    assert refused(*words) == f"{nowhere} is not a project: it has no project.json; `alfamix init` makes one"


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            {"name": "entropie"},
            f'strategy.name: unknown strategy "entropie"; known: {KNOWN}; did you mean "entropy"?',
        ),
        (
            {"name": "alfamix", "parameters": {"depth": 2}},
            'strategy "alfamix": unknown parameter "depth"; known: ' + ", ".join(registry.annotations("alfamix")),
        ),
        (
            {"name": "bald", "parameters": {"passes": 1}},
            'strategy "bald": passes must be a whole number from 2 on, not 1',
        ),
    ],
)
@pytest.mark.parametrize("plan", [(), ("--plan",)])
def test_an_unknown_strategy_or_parameter_is_refused_and_the_known_ones_are_listed(
    birds, refused, strategy, message, plan
):
    birds.configure(strategy=strategy)
    assert refused("round", "birds", *plan) == message


@pytest.mark.parametrize("plan", [(), ("--plan",)])
def test_a_project_of_a_newer_schema_is_left_alone(birds, refused, plan):
    birds.configure(schema_version=2, holograms=True)
    assert (
        refused("round", "birds", *plan) == "project.json: schema_version is 2, this alfamix knows 1: upgrade alfamix"
    )


LINES = [
    ("{'uri': 'x.png'}", "is not JSON (key must be a string at line 1 column 2)"),
    ("[]", "Input should be an object"),
    ({"label": "cat"}, 'field "uri" is missing'),
    ({"uri": "x.png", "colour": 1}, 'unknown field "colour"'),
    ({"uri": "x.png", "label": "eagle"}, 'label "eagle" is not a class; the classes are cat, dog, owl'),
    ({"uri": "../x.png"}, 'uri "../x.png" must not contain a part ".."'),
    ({"uri": "sub/../../x.png"}, 'uri "sub/../../x.png" must not contain a part ".."'),
    (
        {"uri": "/etc/passwd"},
        'uri "/etc/passwd" must be relative to the folder of its manifest, or begin with file:// or s3://',
    ),
    (
        {"uri": "file:///etc/passwd"},
        'uri "file:///etc/passwd" must be relative to the folder of its manifest or under one of data_prefixes '
        "(there are none)",
    ),
    (
        {"uri": "s3://bucket/x.png"},
        'uri "s3://bucket/x.png" must be relative to the folder of its manifest or under one of data_prefixes '
        "(there are none)",
    ),
    ({"uri": "https://example.org/x.png"}, 'uri "https://example.org/x.png" must begin with file:/// or s3://'),
]


@pytest.mark.parametrize(("line", "message"), LINES)
def test_a_bad_line_of_a_manifest_is_refused_with_its_number(birds, refused, line, message):
    birds.files("ok.png", "x.png")
    path = birds.manifest({"uri": "ok.png"}, line)
    assert refused("drop", "birds", path) == f"m.jsonl line 2: {message}"


@pytest.mark.parametrize(("line", "message"), LINES)
def test_a_file_with_a_bad_line_is_set_aside_with_that_line_and_rounds_go_ahead(birds, line, message):
    birds.put("drops/by-hand/manifest.jsonl", {"uri": "ok.png"}, line)
    assert json.loads(birds.run("round", "birds", "--plan", "--json"))["decision"] == "plan"
    message = message.replace("there are none", f"{birds.project.as_uri()}/files")
    assert set_aside(birds) == [f"drops/by-hand/manifest.jsonl line 2: {message}"]


def set_aside(birds):
    return json.loads(birds.run("status", "birds", "--json"))["set_aside"]


def test_an_id_may_not_name_two_uris(birds, refused):
    birds.files("x.png", "y.png")
    path = birds.manifest({"uri": "x.png", "id": "one"}, {"uri": "y.png", "id": "one"})
    new = birds.new.as_uri()
    assert refused("drop", "birds", path) == (
        f'm.jsonl line 2: id "one" is already the sample {new}/x.png; it cannot be {new}/y.png as well'
    )


def test_an_id_may_not_name_two_uris_across_drops(birds):
    birds.put("drops/second/manifest.jsonl", {"uri": "other.png", "id": "a"})
    drops = (birds.project / "drops").as_uri()
    assert set_aside(birds) == [
        f'drops/second/manifest.jsonl line 1: id "a" is already the sample {drops}/first/a.png of '
        f"drops/first/manifest.jsonl; it cannot be {drops}/second/other.png as well"
    ]


def test_an_empty_drop_is_refused(birds, refused):
    assert refused("drop", "birds", "new") == f"{birds.new.as_uri()} has nothing to register: no sample in it"
    birds.files("notes.txt")
    assert refused("drop", "birds", "new") == f"{birds.new.as_uri()} has nothing to register: no sample in it"
    path = birds.manifest()
    assert refused("drop", "birds", path) == f"{path.as_uri()}: empty file"
    path = birds.manifest("", "  ")
    assert refused("drop", "birds", path) == f"{path.as_uri()} has nothing to register: no sample in it"


@pytest.mark.parametrize("name", ["gone", "gone.jsonl"])
def test_a_drop_that_is_not_there_is_named(birds, refused, name):
    said = refused("drop", "birds", name)
    assert said in (f"{birds.folder}/gone must be a folder that exists", f"{birds.folder.as_uri()}/gone.jsonl: missing")


def test_with_labelled_every_first_folder_must_be_a_class(birds, refused):
    birds.files("cat/x.png", "eagle/y.png")
    said = refused("drop", "birds", "new", "--labelled")
    assert said == (
        f"{birds.new.as_uri()}/eagle/y.png: with --labelled the first folder below the source must be a class "
        "(cat, dog, owl), not 'eagle'"
    )


def test_s3_outside_the_prefixes_is_refused_before_it_is_asked(birds, refused):
    path = birds.manifest({"uri": "s3://bucket/x.png"})
    assert "must be relative to the folder of its manifest or under one of data_prefixes" in refused(
        "drop", "birds", path
    )


EVENT = {"event_id": "e", "sample_id": "a", "kind": "label", "label": "cat", "annotator": "ann"}
EVENT |= {"time": "2026-03-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": "eagle"}, 'label "eagle" is not a class; the classes are cat, dog, owl'),
        ({"kind": "guess"}, "field \"kind\" must be 'label', 'skip', 'cannot_label' or 'withdraw', not \"guess\""),
        ({"label": None}, 'kind "label" needs a label'),
    ],
)
def test_a_file_with_a_bad_label_event_is_set_aside_with_its_line(birds, fields, message):
    birds.put("labels/by-hand.jsonl", EVENT, EVENT | {"event_id": "f"} | fields)
    assert set_aside(birds) == [f"labels/by-hand.jsonl line 2: {message}"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("z,cat", 'sample "z" is in no drop of the project'),
        ("a,eagle", 'label "eagle" is not a class; the classes are cat, dog, owl'),
        ("a", "has another number of fields than the header's 2"),
    ],
)
def test_a_bad_row_of_answers_is_refused_with_its_line(birds, refused, row, message):
    (birds.folder / "answers.csv").write_text(f"sample_id,label\nb,dog\n{row}\n")
    separator = " " if message.startswith("has") else ": "
    assert refused("labels", "import", "birds", "answers.csv") == f"answers.csv line 3{separator}{message}"


def test_answers_that_cannot_be_read_are_named(birds, refused):
    assert refused("labels", "import", "birds", "gone.csv") == "gone.csv cannot be read: No such file or directory"
    assert refused("answer", "birds", "--oracle", "gone.csv") == "gone.csv cannot be read: No such file or directory"


def test_an_oracle_that_knows_another_class_is_refused(birds, refused):
    (birds.folder / "truth.csv").write_text("sample_id,label\na,eagle\n")
    assert refused("answer", "birds", "--oracle", "truth.csv") == (
        'truth.csv line 2: label "eagle" is not a class; the classes are cat, dog, owl'
    )


HOLD = """
import os, sys
from datetime import UTC, datetime, timedelta
from alfamix_core.project import lock
from alfamix_core.storage import open_store

now = datetime.now(UTC)
lock.acquire(open_store(sys.argv[1]), lock.process("run-1", os.getpid()), now, now + timedelta(hours=1))
print("held", flush=True)
input()
"""


def test_a_project_locked_by_a_living_run_is_left_alone(birds, refused):
    command = [sys.executable, "-c", HOLD, birds.project.as_uri()]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "held\n"
        said = refused("round", "birds")
        assert said.startswith(f"the project is locked by run run-1 (process {run.pid} on ")
        assert said.endswith("wait for it, or run `alfamix unlock` if it is dead")
        plan = birds.run("round", "birds", "--plan", "--json")
        assert (json.loads(plan)["decision"], json.loads(plan)["because"]) == ("refused", said)
        assert said in birds.run("status", "birds")
        run.kill()
    assert json.loads(birds.run("round", "birds", "--plan", "--json"))["decision"] == "plan"


def test_an_unknown_engine_is_refused(refused):
    assert refused("round", "birds", "--engine", "magic") == '--engine: must be local, docker or kubeflow, not "magic"'


def test_a_round_that_does_not_exist_has_no_report(birds, refused):
    assert refused("report", "birds", "--round", "7") == f"{birds.project.as_uri()} has no round 7"


@pytest.mark.parametrize("place", ["https://example.org/x", "s3://B/x", "file://relative"])
def test_a_place_that_no_project_can_be_at_is_refused(refused, place):
    assert "must" in refused("status", place)


def test_a_file_that_cannot_be_written_is_named(birds, refused):
    (birds.folder / "file").write_bytes(b"")
    assert refused("queue", "export", "birds", "file/x.csv") == "file/x.csv cannot be written: File exists"


@pytest.mark.parametrize(
    ("classes", "what"), [("\u00e9,e\u0301", "is named twice (items 1 and 2)"), ("a,b\nc", "line break")]
)
def test_classes_that_look_alike_or_break_a_line_are_refused(refused, classes, what):
    assert what in refused("init", "other", "--classes", classes)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\xef\xbb\xbf", "begins with a byte order mark"),
        (b"\xff\xfe", "begins with a byte order mark of UTF-16"),
        (b"\x1f\x8b\x08", "is gzip"),
    ],
)
def test_bytes_of_another_format_are_named_by_it(birds, refused, start, what):
    path = birds.put("labels/1.jsonl", EVENT)
    path.write_bytes(start + path.read_bytes())
    assert set_aside(birds)[0].startswith(f"labels/1.jsonl line 1: {what}")
    path = birds.project / "project.json"
    path.write_bytes(start + path.read_bytes())
    assert f"project.json: {what}" in refused("status", "birds")


def test_a_device_that_never_ends_is_refused(birds, refused):
    assert refused("labels", "import", "birds", "/dev/zero") == (
        "/dev/zero must be a file or a pipe, not a device or a socket"
    )


def test_a_foreign_name_breaks_no_line_and_commands_no_terminal(birds):
    (birds.project / "labels").mkdir()
    for name in ("new\nline.jsonl", "\x1b[31mred.jsonl", "\u202egnp.jsonl", "\x85.jsonl"):
        (birds.project / "labels" / name).write_text("no event\n")
    said = birds.alfamix("doctor", "birds").stdout
    assert len(said.splitlines()) == 2 * said.count("\n  ")
    assert "labels/new\\nline.jsonl" in said
    assert not set(said) & set("\x1b\x85\u202e")
