"""Acquisition timed against a commit: both packages are loaded beside each other and do the same."""

import sys

import pytest

from benchmarks import against


def test_both_sides_are_packages_of_their_own_that_choose_the_same():
    with against.earlier("HEAD"):
        for part, build in against.PARTS.items():
            before, now = (build(package, 300, 8)() for package in (against.EARLIER, against.TODAY))
            assert before == now if isinstance(now, list) else before.equal(now), part
        loaded = [name for name in sys.modules if name.startswith(f"{against.EARLIER}.acquisition")]
        assert loaded
        before, now = against.compare("coreset", 300, 8, 1)
        assert before >= 0
        assert now >= 0


def test_a_commit_that_git_does_not_know_is_an_error():
    with pytest.raises(Exception, match="git"), against.earlier("no-such-commit"):
        pass
