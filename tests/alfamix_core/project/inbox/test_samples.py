"""A manifest's uris made absolute, and what a deliverer may leave to us."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from alfamix_core.project.inbox.samples import resolver
from alfamix_core.storage import absolute_uri

PARTS = st.sampled_from(
    ["a", "b.png", ".", "..", "", ".hidden", "ä", "a b", "%20", "~x", "a%2Fb", "-", "\\", "x" * 250]
)
PREFIXES = ("file:///data/one", "s3://pictures", "s3://others/a", "file:///with%20space/")
STARTS = st.sampled_from(
    ["", "/", "file:///", *PREFIXES, *(prefix + "/" for prefix in PREFIXES), "S3://pictures/", "http://x/"]
)


@pytest.mark.parametrize("folder", ["file:///project/drops/a/", "s3://bucket/project/drops/a/"])
@given(start=STARTS, parts=st.lists(PARTS, max_size=4))
def test_a_uri_resolved_quickly_is_what_it_is_slowly(folder, start, parts):
    uri = start + "/".join(parts)

    def outcome(resolve, *arguments):
        try:
            return resolve(uri, *arguments)
        except InputError as error:
            return str(error)

    assert outcome(resolver(folder, PREFIXES)) == outcome(absolute_uri, folder, PREFIXES)


def test_a_prefix_that_is_no_uri_is_an_error_only_where_a_uri_is_compared_with_it():
    resolve = resolver("file:///p/", ("s3://",))
    assert resolve("a/b.png") == "file:///p/a/b.png"
    with pytest.raises(InputError):
        resolve("s3://bucket/a")
