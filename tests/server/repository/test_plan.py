"""Plans lead from any snapshot to any other."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.plan import Load, Problem, Unload, plan
from trivet.server.repository.scan import Snapshot

fingerprints = st.integers(1, 3).map(lambda n: (("model.onnx", n, n, n),))
names = st.sampled_from("abcd")
versions = st.dictionaries(st.integers(1, 3), fingerprints, max_size=2)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    models = {
        name: ModelFolder(name, Path(name), draw(fingerprints), draw(versions))
        for name in draw(st.sets(names))
    }
    problems = {name: draw(st.sampled_from(["p", "q"])) for name in draw(st.sets(names))}
    return Snapshot(models, {n: reason for n, reason in problems.items() if n not in models})


@given(snapshots(), snapshots())
def test_a_plan_s_actions_give_the_snapshot(before: Snapshot, after: Snapshot) -> None:
    models, problems = dict(before.models), dict(before.problems)
    for action in plan(after, before):
        if isinstance(action, Load):
            models[action.name] = action.folder
            problems.pop(action.name, None)
        elif isinstance(action, Problem):
            problems[action.name] = action.reason
            models.pop(action.name, None)
        else:
            assert isinstance(action, Unload)
            models.pop(action.name, None)
            problems.pop(action.name, None)
    assert models == dict(after.models)
    assert {n: r for n, r in problems.items() if n not in models} == dict(after.problems)


@given(snapshots())
def test_nothing_changed_is_nothing_to_do(snapshot: Snapshot) -> None:
    assert plan(snapshot, snapshot) == ()


@given(snapshots())
def test_a_plan_has_one_action_per_model(snapshot: Snapshot) -> None:
    acted = [action.name for action in plan(snapshot, None)]
    assert acted == sorted({*snapshot.models, *snapshot.problems})


@given(snapshots(), st.sets(names))
def test_what_is_owed_is_loaded_though_nothing_has_changed(same: Snapshot, owed: set[str]) -> None:
    actions = plan(same, same, owed)
    assert {action.name for action in actions} == owed & same.models.keys()
    assert all(isinstance(action, Load) for action in actions)
