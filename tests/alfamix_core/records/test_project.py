import json
import re

import pytest

from alfamix_core.errors import InputError
from alfamix_core.records.project import Project, read_project

BIRDS = {"name": "birds", "classes": ["cat", "dog"]}


def parse(**fields):
    return read_project(json.dumps(BIRDS | fields).encode())


def test_two_fields_are_enough():
    assert parse() == Project(name="birds", classes=("cat", "dog"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"colour": 1}, 'unknown field "colour"'),
        ({"model": {"depth": 18}}, 'unknown field "model.depth"'),
        ({"budget": 0}, 'field "budget" must be greater than or equal to 1, not 0'),
        ({"budget": "ten"}, 'field "budget" must be a valid integer, not "ten"'),
        ({"budget": 1.5}, 'field "budget" must be a valid integer, not 1.5'),
        ({"budget": True}, 'field "budget" must be a valid integer, not true'),
        ({"classes": ["cat", "dog", "cat"]}, 'class "cat" is named twice (items 1 and 3)'),
        ({"classes": ["cat"]}, 'field "classes" must have at least 2 items after validation, not 1, not ["cat"]'),
        ({"classes": "cat,dog"}, 'field "classes" must be a valid array, not "cat,dog"'),
        ({"model": {"encoder": "tied"}}, "field \"model.encoder\" must be 'trained' or 'frozen', not \"tied\""),
        ({"data_prefixes": ["/data"]}, 'data prefix "/data" must begin with file:/// or s3://'),
        ({"seed": -1}, 'field "seed" must be greater than or equal to 0, not -1'),
    ],
)
def test_bad_settings_by_hand(fields, message):
    with pytest.raises(InputError) as refused:
        parse(**fields)
    assert str(refused.value) == f"project.json: {message}"


@pytest.mark.parametrize("name", ["", "Birds", "-a", "a_b", "a" * 64, "ä", "a\n"])
def test_a_name_that_cannot_name_a_pod_is_refused(name):
    with pytest.raises(InputError, match='field "name" must match pattern'):
        parse(name=name)


def test_a_newer_schema_is_said_to_be_one_whatever_else_it_holds():
    with pytest.raises(InputError) as refused:
        parse(schema_version=2, colour=1)
    assert str(refused.value) == "project.json: schema_version is 2, this alfamix knows 1: upgrade alfamix"


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"7", b"\xff\xfe", b'{"schema_version": "two"}'])
def test_a_file_that_is_no_project_is_one_line(data):
    with pytest.raises(InputError, match=r"^project.json: [^\n]+$"):
        read_project(data)


@pytest.mark.parametrize(
    ("image", "line"),
    [
        ({"normalisation": "numbers"}, r'field "image" mean must hold one number per channel, 3 for colour, not 0'),
        (
            {"normalisation": "numbers", "mean": [0.1, 0.2], "std": [0.1, 0.2], "channels": "grey"},
            r'field "image" mean must hold one number per channel, 1 for grey, not 2',
        ),
        ({"mean": [0.1, 0.2, 0.3]}, r'field "image" mean needs normalisation=numbers, not auto'),
        (
            {"normalisation": "numbers", "mean": [0.1], "std": [0], "channels": "grey"},
            r'field "image.std.0" must be greater than or equal to 0.001, not 0',
        ),
        ({"normalisation": "imagnet"}, r'field "image.normalisation" must be .*, not "imagnet"'),
    ],
)
def test_numbers_that_cannot_normalise_are_one_line(image, line):
    project = {"name": "pets", "classes": ["cat", "dog"], "image": image}
    with pytest.raises(InputError) as stopped:
        read_project(json.dumps(project).encode())
    assert re.search(line, str(stopped.value)), str(stopped.value)
    assert "\n" not in str(stopped.value)
