"""One place has one spelling, and a manifest cannot point outside of what it is allowed."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfamix_core.errors import InputError
from alfamix_core.storage import absolute_uri, file_uri, is_below, normalise_folder_uri, normalise_uri, path_of
from alfamix_core.storage.uris import bucket_and_key

FOLDER = "file:///data/drops/a"
BUCKET = "s3://bucket/drops/a"


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("file:///a/b.png", "file:///a/b.png"),
        ("FILE://localhost/a/./b.png", "file:///a/b.png"),
        ("file:///a b/%41/ü#1?.png", "file:///a%20b/A/%C3%BC%231%3F.png"),
        ("file:///100%.png", "file:///100%25.png"),
        ("file:///%31%30%30%25.png", "file:///100%25.png"),
        ("file:///a%2Fb", "file:///a/b"),
        ("file:///a%ff", "file:///a%FF"),
        ("file:///a%5Cb%0A", "file:///a%5Cb%0A"),
        ("S3://bucket/a b/%41/ü#1?.png", "s3://bucket/a b/%41/ü#1?.png"),
        ("s3://bucket/./a", "s3://bucket/a"),
    ],
)
def test_spellings_of_one_place_become_one(uri, canonical):
    assert normalise_uri(uri) == canonical
    assert normalise_uri(canonical) == canonical


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        *(("file:///", "file:///"), ("file:///a/", "file:///a"), ("file:///a", "file:///a")),
        *(("s3://bucket", "s3://bucket"), ("s3://bucket/", "s3://bucket"), ("s3://bucket/a/", "s3://bucket/a")),
    ],
)
def test_a_folder_has_no_slash_at_the_end(uri, canonical):
    assert normalise_folder_uri(uri) == canonical


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("a.png", "must begin with file:/// or s3://"),
        ("/a.png", "must begin with file:/// or s3://"),
        ("http://host/a.png", "must begin with file:/// or s3://"),
        ("file:/a.png", "must begin with file:/// or s3://"),
        ("file://host/a.png", "must be absolute"),
        ("file://a.png", "must be absolute"),
        ("file:///a/../b", 'must not contain a part ".."'),
        ("file:///a/%2E%2e/b", 'must not contain a part ".."'),
        ("file:///a/..%2Fb", 'must not contain a part ".."'),
        ("file:///a//b", "must name a file"),
        ("file:///a/", "must name a file"),
        ("file:///", "must name a file"),
        ("file:///a%00", "must not contain a zero byte"),
        ("file:///\ud800", "must be text that UTF-8 can hold"),
        ("s3://bucket", "must name a file"),
        ("s3://bucket/a/../b", 'must not contain a part ".."'),
        ("s3://bucket/a//b", "must name a file"),
        ("s3://bucket/a\n", "must not contain control characters"),
        ("s3://bucket/\ud800", "must not contain control characters"),
        ("s3://b/a", "must name a bucket of 3 to 63"),
        ("s3://Bucket/a", "must name a bucket of 3 to 63"),
        ("s3://bucket/" + "ü" * 600, "at most 1024 bytes"),
    ],
)
def test_what_is_no_place_is_refused_in_one_line(uri, words):
    with pytest.raises(InputError, match=words) as caught:
        normalise_uri(uri)
    str(caught.value).encode()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "uri", "absolute"),
    [
        (FOLDER, "x.png", "file:///data/drops/a/x.png"),
        (FOLDER + "/", "./b c/100%41 ü#?.png", "file:///data/drops/a/b%20c/100%2541%20%C3%BC%23%3F.png"),
        (FOLDER, "./10:30.png", "file:///data/drops/a/10%3A30.png"),
        (FOLDER, "10:30.png", "file:///data/drops/a/10%3A30.png"),
        ("file:///", "x", "file:///x"),
        (BUCKET, "./b c/100%41 ü#?.png", "s3://bucket/drops/a/b c/100%41 ü#?.png"),
        ("s3://bucket", "x", "s3://bucket/x"),
        (FOLDER, "file:///mnt/x/y.png", "file:///mnt/x/y.png"),
        (FOLDER, "file:///mnt/%78/y.png", "file:///mnt/x/y.png"),
        (BUCKET, "s3://other/x/y.png", "s3://other/x/y.png"),
    ],
)
def test_a_manifest_names_files_of_its_folder_or_of_a_prefix(folder, uri, absolute):
    assert absolute_uri(uri, folder, ["file:///mnt/x/", "s3://other"]) == absolute


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("../x", 'must not contain a part ".."'),
        ("a/../../x", 'must not contain a part ".."'),
        ("/etc/passwd", "must be relative to the folder of its manifest"),
        ("file:///etc/passwd", r"under one of data_prefixes \(file:///mnt/x, s3://other/y\)"),
        ("file:///mnt/x", "under one of data_prefixes"),
        ("file:///mnt/xy/z", "under one of data_prefixes"),
        ("file:///mnt/x/%2e%2e/z", 'must not contain a part ".."'),
        ("s3://other/yy", "under one of data_prefixes"),
        ("s3://other2/y/z", "under one of data_prefixes"),
        ("http://host/x", "must begin with file:/// or s3://"),
        ("data:image/png;base64,AAAA", "must begin with file:/// or s3://"),
        ("C:\\x.png", "must begin with file:/// or s3://"),
        ("a\\b.png", "must have / between folders"),
        ("", "must name a file"),
        (".", "must name a file"),
        ("a/", "must name a file"),
        ("a//b", "must name a file"),
        ("a\0b", "must not contain control characters"),
        ("\udcff", "must not contain control characters"),
    ],
)
@pytest.mark.parametrize("folder", [FOLDER, BUCKET])
def test_a_manifest_reaches_nothing_else(folder, uri, words):
    with pytest.raises(InputError, match=words) as caught:
        absolute_uri(uri, folder, ["file:///mnt/x", "s3://other/y"])
    str(caught.value).encode()


def test_without_prefixes_no_absolute_uri_is_allowed():
    with pytest.raises(InputError, match=r"data_prefixes \(there are none\)"):
        absolute_uri("file:///data/drops/a/x.png", FOLDER, [])


@pytest.mark.parametrize("folder", ["file:///", "file:///a", "file:///a/"])
def test_below_means_below(folder):
    assert is_below("file:///a/b", folder)
    assert not is_below("s3://bucket/a/b", folder)


NAMES = st.binary(min_size=1, max_size=30).filter(
    lambda name: name not in (b".", b"..") and not set(name) & {0, ord("/")}
)
TEXTS = st.text(min_size=1, max_size=30)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_every_name_of_a_file_system_makes_the_round_trip(names):
    path = Path(os.fsdecode(b"/" + b"/".join(names)))
    uri = file_uri(path)
    assert uri.isascii()
    assert normalise_uri(uri) == uri
    assert path_of(uri) == path


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_relative_name_is_the_same_file_as_its_absolute_uri(names):
    for folder in (FOLDER, BUCKET):
        try:
            uri = absolute_uri("/".join(names), folder, [])
        except InputError:
            continue
        assert is_below(uri, folder)
        assert normalise_uri(uri) == uri
        assert absolute_uri(uri, FOLDER, [folder]) == uri
        parts = ["drops", "a", *(part for part in "/".join(names).split("/") if part != ".")]
        if folder == BUCKET:
            assert bucket_and_key(uri) == ("bucket", "/".join(parts))
        else:
            assert path_of(uri) == Path("/data", *parts)


@given(st.text(max_size=40), st.sampled_from(["", "file:///", "s3://bucket/", "s3://", "file:"]))
def test_any_text_is_a_uri_or_refused(text, beginning):
    uri = beginning + text
    for use in (
        normalise_uri,
        normalise_folder_uri,
        lambda uri: absolute_uri(uri, BUCKET, ["file:///", "s3://bucket"]),
    ):
        try:
            canonical = use(uri)
        except InputError as error:
            str(error).encode()
            continue
        canonical.encode()
        assert use(canonical) == canonical
        assert ".." not in canonical.split("/")
