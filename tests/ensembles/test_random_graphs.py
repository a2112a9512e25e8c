"""Random graphs of small models answer as their steps do when they are run one by one."""

import asyncio
from dataclasses import dataclass

import numpy as np
from ensemble_room import Arrays, Room, config, ensemble, step
from hypothesis import given, settings
from hypothesis import strategies as st

MODELS = {
    "double": (["IN"], lambda given: {"OUT": given["IN"] * 2}),
    "shift": (["IN"], lambda given: {"OUT": given["IN"] + 1}),
    "swap": (["IN"], lambda given: {"OUT": given["IN"][:, ::-1]}),
    "sum": (["L", "R"], lambda given: {"OUT": given["L"] + given["R"]}),
    "minus": (["L", "R"], lambda given: {"OUT": given["L"] - given["R"]}),
    "both": (["L", "R"], lambda given: {"OUT": given["L"], "OTHER": given["R"] * 3}),
}


@dataclass(frozen=True)
class Node:
    """A step of a random graph."""

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Up to ten steps, each of tensors that are there before it."""
    tensors = ["X0", "X1"]
    nodes = []
    for number in range(draw(st.integers(1, 10))):
        model = draw(st.sampled_from(sorted(MODELS)))
        names = MODELS[model][0]
        inputs = {name: draw(st.sampled_from(tensors)) for name in names}
        outputs = {"OUT": f"T{number}"} | ({"OTHER": f"U{number}"} if model == "both" else {})
        tensors += outputs.values()
        nodes.append(Node(model, inputs, outputs))
    return nodes


def one_by_one(nodes: list[Node], inputs: Arrays) -> Arrays:
    """What the steps give when nothing runs beside anything."""
    tensors = dict(inputs)
    for node in nodes:
        made = MODELS[node.model][1]({name: tensors[t] for name, t in node.inputs.items()})
        tensors |= {node.outputs[name]: values for name, values in made.items()}
    return tensors


@settings(max_examples=60, deadline=None)
@given(
    graphs(), st.randoms(use_true_random=False), st.lists(st.integers(1, 3), min_size=1, max_size=6)
)
def test_a_graph_answers_as_its_steps_do_one_by_one(nodes, random, sizes) -> None:  # type: ignore[no-untyped-def]
    asyncio.run(_check(nodes, random, sizes))


async def _check(nodes: list[Node], random, sizes: list[int]) -> None:  # type: ignore[no-untyped-def]
    room = Room()
    for name, (inputs, function) in MODELS.items():
        outputs = {"OUT": "FP32 2"} | ({"OTHER": "FP32 2"} if name == "both" else {})
        room.model(name, config(dict.fromkeys(inputs, "FP32 2"), outputs), function)
    used = {tensor for node in nodes for tensor in node.inputs.values()}
    own = sorted({"X0", "X1"} & used)
    made = [tensor for node in nodes for tensor in node.outputs.values()]
    wanted = random.sample(made, random.randint(1, len(made)))
    steps = [step(node.model, node.inputs, node.outputs) for node in nodes]
    random.shuffle(steps)
    declared = [f'input {{ name: "{name}" }}' for name in own]
    declared += [f'output {{ name: "{name}" }}' for name in made]
    room.ensemble("e", ensemble(*steps, more="max_batch_size: 8 " + " ".join(declared)))
    requests = [
        {name: np.full((size, 2), [i, random.randint(0, 9)], np.float32) for name in own}
        for i, size in enumerate(sizes)
    ]

    answers = await asyncio.gather(*(room.infer("e", each, tuple(wanted)) for each in requests))

    for request, answer in zip(requests, answers, strict=True):
        expected = one_by_one(nodes, request)
        assert {name: values.tolist() for name, values in answer.items()} == {
            name: expected[name].tolist() for name in wanted
        }
    await room.close()
