import pytest

from tests.monitoring.expressions import used


@pytest.mark.parametrize(
    ("expression", "metrics", "labels"),
    [
        ("up", "up", ""),
        ('a_b{job="x(y)", p!~"z"} > 1e3', "a_b", "job p"),
        ("max by (project) (rate(a_total[5m])) / on (project) group_left (team) b", "a_total b", "project team"),
        ("sum(a) by (x, y) offset 1h unless c or time() - inf", "a c", "x y"),
        ("project:a:latest and on () vector(1)", "project:a:latest", ""),
        ('label_replace(a, "to", "$1", "from", "(.*)") == bool 2', "a", ""),
    ],
)
def test_the_names_in_an_expression(expression, metrics, labels):
    found = used(expression)
    assert found.metrics == set(metrics.split())
    assert found.labels == set(labels.split())
