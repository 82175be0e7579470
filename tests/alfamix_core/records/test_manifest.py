import hashlib

import pytest

from alfamix_core.errors import InputError
from alfamix_core.records.manifest import ManifestLine, sample_id


def test_the_default_id_is_the_first_16_hex_digits_of_the_hash_of_the_uri():
    assert sample_id("file:///data/a.png") == hashlib.sha256(b"file:///data/a.png").hexdigest()[:16]


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".a", "a b", "ä", "a" * 129])
def test_an_id_that_cannot_name_a_file_is_refused(key):
    with pytest.raises(InputError, match='field "id"'):
        ManifestLine.parse(f'{{"uri": "a.png", "id": "{key}"}}', "it")


def test_audit_is_not_for_manifests():
    with pytest.raises(InputError, match='field "split"'):
        ManifestLine.parse('{"uri": "a.png", "split": "audit"}', "it")
