from datetime import timedelta

import pytest

from alfamix_core.errors import InputError
from alfamix_core.records.labels import LabelEvent

FIELDS = '"event_id": "e", "sample_id": "s", "annotator": "ann", "time": "2026-03-01T12:00:00+02:00"'


@pytest.mark.parametrize("kind", ["skip", "cannot_label", "withdraw"])
def test_a_label_belongs_to_kind_label_alone(kind):
    with pytest.raises(InputError, match=f'kind "{kind}" has no label'):
        LabelEvent.parse(f'{{{FIELDS}, "kind": "{kind}", "label": "cat"}}', "it")
    with pytest.raises(InputError, match='kind "label" needs a label'):
        LabelEvent.parse(f'{{{FIELDS}, "kind": "label"}}', "it")


def test_a_time_without_its_zone_is_refused():
    with pytest.raises(InputError, match='field "time"'):
        LabelEvent.parse(f'{{{FIELDS.replace("+02:00", "")}, "kind": "skip"}}', "it")


def test_events_are_ordered_by_moment_and_not_by_clock_face():
    east = LabelEvent.parse(f'{{{FIELDS}, "kind": "skip"}}', "it")
    utc = LabelEvent.parse(f'{{{FIELDS.replace("12:00:00+02:00", "10:30:00Z")}, "kind": "skip"}}', "it")
    assert east.order < utc.order
    assert utc.time - east.time == timedelta(minutes=30)
