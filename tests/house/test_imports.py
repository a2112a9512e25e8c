"""No two modules need each other, however they import: at their top, for types alone, or late."""

from import_graph import circles, import_graph


def test_circles_are_found() -> None:
    graph = {
        "a": frozenset({"b"}),
        "b": frozenset({"c", "d"}),
        "c": frozenset({"a"}),
        "d": frozenset({"e"}),
        "e": frozenset({"d"}),
        "f": frozenset({"a"}),
    }
    assert sorted(map(sorted, circles(graph))) == [["a", "b", "c"], ["d", "e"]]


def test_no_modules_import_each_other() -> None:
    graph = import_graph()
    assert len(graph) > 400
    assert "trivet.backends.api.batch" in graph["trivet.backends.api"]
    assert [sorted(circle) for circle in circles(graph)] == []
