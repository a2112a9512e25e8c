"""PyTorch models of every kind end to end: opening, names, types, memory, refusals."""

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from trivet.backends.api import (
    BackendFailed,
    Batch,
    DataType,
    InferRequest,
    Instance,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Placement,
    Tensor,
)
from trivet.backends.pytorch.backend import PyTorchBackend
from trivet.protos import model_config_pb2 as pb
from trivet.protos.model_config_pb2 import ModelConfig


class AddSub(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a - b


class Same(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class ByName(torch.nn.Module):
    def forward(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"twice": values["x"] * 2, "half": values["x"] / 2}


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, factor: float = 3.0) -> torch.Tensor:
        return x * factor


class Counter(torch.nn.Module):
    """Returns a buffer that it changes with every call."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += x.sum()
        return self.count


def io(role: str, *names: str, dims: str = "4", kind: str = "FP32") -> str:
    return "".join(
        f'{role} {{ name: "{name}" data_type: TYPE_{kind} dims: [{dims}] }}\n' for name in names
    )


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: {value!r} }} }}\n'


ADD_SUB = io("input", "a", "b") + io("output", "OUTPUT__0", "OUTPUT__1")


@dataclass
class Home:
    """The folder of model 'm' and a backend of its own."""

    model_dir: Path
    backend: PyTorchBackend = field(default_factory=PyTorchBackend)

    @property
    def files(self) -> ModelFiles:
        return ModelFiles(self.model_dir, 1)

    def path(self, name: str) -> Path:
        self.files.version_dir.mkdir(parents=True, exist_ok=True)
        return self.files.version_dir / name

    def put_script(self, module: torch.nn.Module) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            script = torch.jit.script(module.eval())
            torch.jit.save(script, self.path("model.pt"))

    def put_traced(self, module: torch.nn.Module, *inputs: torch.Tensor) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            traced = torch.jit.trace(module.eval(), inputs)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, self.path("model.pt"))

    def put_exported(
        self, module: torch.nn.Module, *inputs: torch.Tensor, batch: bool = True
    ) -> None:
        dims = {0: torch.export.Dim.DYNAMIC}
        shapes = tuple(dims for _ in inputs) if batch else None
        exported = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes)
        torch.export.save(exported, self.path("model.pt2"))

    def complete(self, text: str = "") -> ModelConfig:
        config = text_format.Parse(text, ModelConfig(name="m", backend="pytorch"))
        return self.backend.complete(config, self.files)

    def open(self, text: str = "") -> Instance:
        placement = Placement("m_0_0", "KIND_CPU", 0, 1)
        return self.backend.open(self.complete(text), self.files, placement)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "m")


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make_request(inputs: dict[str, np.ndarray], outputs: tuple[str, ...] = ()) -> InferRequest:
    tensors = {name: Tensor.of(name, array) for name, array in inputs.items()}
    first = next(iter(inputs.values()))
    return InferRequest("m", None, "", tensors, outputs, batch_size=len(first) if first.ndim else 1)


def run_one(instance: Instance, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    batch = Batch([make_request(inputs)], batching=True)
    instance.execute(batch)
    return {tensor.name: tensor.numpy() for tensor in batch.outputs[0]}


ONES = np.ones((1, 4), np.float32)


@pytest.mark.parametrize("kind", list(DataType))
def test_every_datatype_shares_its_memory_in_and_out(home: Home, kind: DataType) -> None:
    if kind is DataType.BYTES:
        pytest.skip("PyTorch has no strings")
    home.put_script(Same())
    array = np.array([[0, 1, 1, 0]]).astype(kind.dtype)
    array.flags.writeable = False  # as the bytes of a request are
    name = kind.value

    outputs = run_one(
        home.open(io("input", "x", kind=name) + io("output", "y", kind=name)), x=array
    )

    assert outputs["y"].dtype == kind.dtype
    assert outputs["y"].tolist() == array.tolist()
    assert np.shares_memory(outputs["y"], array)


def test_strings_are_refused(home: Home) -> None:
    home.put_script(Same())

    with pytest.raises(InvalidConfig, match=r"'x'.*all types but TYPE_STRING"):
        home.open(io("input", "x", kind="STRING") + io("output", "y"))


def test_tensor_without_elements_goes_through(home: Home) -> None:
    home.put_script(Same())
    instance = home.open(io("input", "x", dims="-1") + io("output", "y", dims="-1"))

    assert run_one(instance, x=np.empty((2, 0), np.float32))["y"].shape == (2, 0)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (("a", "b"), ("OUTPUT__0", "OUTPUT__1")),
        (("INPUT__0", "INPUT__1"), ("sum", "difference")),
        (("a__0", "b__1"), ("RESULT[0]", "RESULT[1]")),
        (("first", "second"), ("one", "two")),
    ],
)
@pytest.mark.parametrize("kind", ["script", "traced", "exported", "module"])
def test_names_of_triton_are_understood(
    home: Home, kind: str, inputs: tuple[str, str], outputs: tuple[str, str]
) -> None:
    if kind == "script":
        home.put_script(AddSub())
    elif kind == "traced":
        home.put_traced(AddSub(), torch.ones(2, 4), torch.ones(2, 4))
    elif kind == "exported":
        home.put_exported(AddSub(), torch.ones(2, 4), torch.ones(2, 4))
    else:
        home.path("model.py").write_text(ADD_SUB_SOURCE)
    instance = home.open("max_batch_size: 8 " + io("input", *inputs) + io("output", *outputs))

    found = run_one(instance, **{inputs[1]: ONES, inputs[0]: ONES * 5})

    assert found[outputs[0]].tolist() == [[6.0] * 4]
    assert found[outputs[1]].tolist() == [[4.0] * 4]


ADD_SUB_SOURCE = """
import torch

class AddSub(torch.nn.Module):
    def forward(self, a, b):
        return a + b, a - b
"""


def test_numbers_count_more_than_the_order_of_the_config(home: Home) -> None:
    home.put_script(AddSub())
    names = ("INPUT__1", "INPUT__0")
    instance = home.open(io("input", *names) + io("output", "OUTPUT__1", "OUTPUT__0"))

    found = run_one(instance, INPUT__0=ONES * 5, INPUT__1=ONES)

    assert found["OUTPUT__1"].tolist() == [[4.0] * 4]


def test_script_with_dicts_is_served_by_name(home: Home) -> None:
    home.put_script(ByName())

    found = run_one(home.open(io("input", "x") + io("output", "half", "twice")), x=ONES)

    assert found["half"].tolist() == [[0.5] * 4]
    assert found["twice"].tolist() == [[2.0] * 4]


def test_argument_with_a_default_needs_no_input(home: Home) -> None:
    home.put_script(Scaled())

    assert run_one(home.open(io("input", "x") + io("output", "y")), x=ONES)["y"][0, 0] == 3


def test_missing_argument_is_told_at_load(home: Home) -> None:
    home.put_script(AddSub())

    with pytest.raises(InvalidConfig, match=r"needs the arguments \['b'\]"):
        home.open(io("input", "a") + io("output", "y"))


@pytest.mark.parametrize("names", [("INPUT__0", "INPUT__2"), ("x", "y", "z"), ("q__0", "r__0")])
def test_inputs_that_do_not_fit_are_told_at_load(home: Home, names: tuple[str, ...]) -> None:
    home.put_script(AddSub())

    with pytest.raises(InvalidConfig, match=r"do not fit the program, which has \['a', 'b'\]"):
        home.open(io("input", *names) + io("output", "y"))


def test_script_without_tensors_in_its_config_is_told_what_to_do(home: Home) -> None:
    home.put_script(AddSub())

    with pytest.raises(InvalidConfig, match=r"list input and output.*torch\.export\.save"):
        home.complete()


def test_exported_program_needs_no_config(home: Home) -> None:
    home.put_exported(AddSub(), torch.ones(2, 4), torch.ones(2, 4))

    config = home.complete()
    found = run_one(home.open(), a=ONES, b=ONES)

    assert config.max_batch_size == 4
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
        ("a", pb.TYPE_FP32, [4]),
        ("b", pb.TYPE_FP32, [4]),
    ]
    assert [list(t.dims) for t in config.output] == [[4], [4]]
    assert [array.tolist() for array in found.values()] == [[[2.0] * 4], [[0.0] * 4]]


def test_exported_program_with_a_fixed_batch_does_not_batch(home: Home) -> None:
    home.put_exported(AddSub(), torch.ones(2, 4), torch.ones(2, 4), batch=False)

    config = home.complete()

    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [2, 4]


def test_exported_program_is_compared_with_the_config(home: Home) -> None:
    home.put_exported(AddSub(), torch.ones(2, 4), torch.ones(2, 4))

    with pytest.raises(InvalidConfig, match="input 'a' has data_type TYPE_INT8"):
        home.complete(io("input", "a", "b", kind="INT8"))


def test_exported_tree_of_arguments_is_rebuilt(home: Home) -> None:
    class Tree(torch.nn.Module):
        def forward(
            self, pair: tuple[torch.Tensor, torch.Tensor], *, scale: torch.Tensor
        ) -> dict[str, torch.Tensor]:
            return {"out": (pair[0] - pair[1]) * scale}

    pair = (torch.ones(2, 4), torch.ones(2, 4))
    exported = torch.export.export(Tree(), (pair,), {"scale": torch.ones(2, 4)})
    torch.export.save(exported, home.path("model.pt2"))
    names = [tensor.name for tensor in home.complete().input]
    twos = np.full((2, 4), 2, np.float32)

    found = run_one(home.open(), **dict(zip(names, (twos * 3, twos, twos), strict=True)))

    assert [array.tolist() for array in found.values()] == [[[8.0] * 4] * 2]


WEIGHTED_SOURCE = """
import torch

class Part(torch.nn.Linear):
    pass

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.part = Part(4, 2)

    def forward(self, x):
        return self.part(x)
"""


def weights() -> dict[str, torch.Tensor]:
    return {"part.weight": torch.full((2, 4), 0.5), "part.bias": torch.tensor([1.0, 2.0])}


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_class_is_served_with_the_weights_beside_it(home: Home, name: str) -> None:
    home.path("model.py").write_text(WEIGHTED_SOURCE)
    if name == "model.pt":
        torch.save(weights(), home.path(name))
    else:
        from safetensors.torch import save_file

        save_file(weights(), home.path(name))
    text = 'runtime: "model.py" ' + parameter("MODEL_CLASS_NAME", "Net")

    found = run_one(home.open(text + io("input", "x") + io("output", "y", dims="2")), x=ONES)

    assert found["y"].tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("options", ['{"backend": "eager"}', '{"disable": "true"}'])
def test_class_is_compiled_as_its_config_says(home: Home, options: str) -> None:
    home.path("model.py").write_text(ADD_SUB_SOURCE)
    text = parameter("TORCH_COMPILE_OPTIONAL_PARAMETERS", options) + ADD_SUB

    found = run_one(home.open(text), a=ONES, b=ONES)

    assert found["OUTPUT__0"].tolist() == [[2.0] * 4]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_compiled_package_is_served_by_its_names(home: Home) -> None:
    class Masked(torch.nn.Module):
        def forward(self, x: torch.Tensor, *, mask: torch.Tensor) -> list[torch.Tensor]:
            return [x * mask, x + mask]

    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    exported = torch.export.export(
        Masked(),
        (torch.ones(2, 4),),
        {"mask": torch.ones(2, 4)},
        dynamic_shapes={"x": batch, "mask": batch},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._inductor.aoti_compile_and_package(exported, package_path=str(home.path("model.pt2")))
    text = 'platform: "torch_aoti"' + io("input", "KWARGS[mask]", "ARGS[0]")
    instance = home.open(text + io("output", "RESULT[1]", "RESULT[0]"))

    found = run_one(instance, **{"ARGS[0]": ONES * 3, "KWARGS[mask]": ONES * 2})

    assert found["RESULT[0]"].tolist() == [[6.0] * 4]
    assert found["RESULT[1]"].tolist() == [[5.0] * 4]


def test_several_classes_need_a_name(home: Home) -> None:
    home.path("model.py").write_text(WEIGHTED_SOURCE)
    torch.save(weights(), home.path("model.pt"))

    with pytest.raises(InvalidConfig, match=r"\['Net', 'Part'\].*MODEL_CLASS_NAME"):
        home.open(io("input", "x") + io("output", "y"))


def test_weights_that_do_not_fit_the_class_are_told(home: Home) -> None:
    home.path("model.py").write_text(WEIGHTED_SOURCE)
    torch.save({"part.weight": torch.ones(2, 3)}, home.path("model.pt"))
    text = parameter("MODEL_CLASS_NAME", "Net") + io("input", "x") + io("output", "y")

    with pytest.raises(LoadFailed, match=r"weights do not fit(.|\n)*part\.bias"):
        home.open(text)


def test_batch_mates_get_views_of_one_result(home: Home) -> None:
    home.put_script(AddSub())
    batch = Batch(
        [make_request({"a": ONES, "b": ONES}), make_request({"a": ONES * 9, "b": ONES})],
        batching=True,
    )

    home.open(ADD_SUB).execute(batch)

    first, second = ({t.name: t.numpy() for t in outputs} for outputs in batch.outputs)
    assert first["OUTPUT__0"].tolist() == [[2.0] * 4]
    assert second["OUTPUT__1"].tolist() == [[8.0] * 4]
    assert first["OUTPUT__0"].base is second["OUTPUT__0"].base is not None


def test_only_wanted_outputs_are_given(home: Home) -> None:
    home.put_script(AddSub())
    batch = Batch([make_request({"a": ONES, "b": ONES}, ("OUTPUT__1",))], batching=True)

    home.open(ADD_SUB).execute(batch)

    assert [tensor.name for tensor in batch.outputs[0]] == ["OUTPUT__1"]


def test_answer_is_not_changed_by_the_next_call(home: Home) -> None:
    home.put_script(Counter())
    text = parameter("INFERENCE_MODE", "false")
    instance = home.open(text + io("input", "x") + io("output", "y", dims="1"))

    first = run_one(instance, x=ONES)["y"]
    second = run_one(instance, x=ONES)["y"]

    assert (first.tolist(), second.tolist()) == ([[4.0]], [[8.0]])


@pytest.mark.parametrize(
    "text",
    [
        parameter("INFERENCE_MODE", "false"),
        parameter("DISABLE_OPTIMIZED_EXECUTION", "true"),
        parameter("DISABLE_CUDNN", "true"),
        parameter("ENABLE_CACHE_CLEANING", "true"),
    ],
)
def test_modes_do_not_change_the_answer(home: Home, text: str) -> None:
    home.put_script(torch.nn.Linear(4, 1, bias=False))

    found = run_one(home.open(text + io("input", "input") + io("output", "y")), input=ONES * 0)

    assert found["y"].tolist() == [[0.0]]


def test_wrong_type_from_the_model_is_told(home: Home) -> None:
    home.put_script(Same())
    instance = home.open(io("input", "x") + io("output", "y", kind="INT32"))

    with pytest.raises(BackendFailed, match=r"torch\.float32 for output 'y'.*TYPE_INT32"):
        run_one(instance, x=ONES)


def test_missing_output_is_told(home: Home) -> None:
    home.put_script(Same())

    with pytest.raises(BackendFailed, match=r"1 value\(s\), none of which is output 'OUTPUT__1'"):
        run_one(home.open(io("input", "x") + io("output", "OUTPUT__1")), x=ONES)


def test_first_model_sets_the_threads_and_a_parameter_sets_them_anew(home: Home) -> None:
    home.put_script(AddSub())
    torch.set_num_threads(3)

    home.open(ADD_SUB)
    after_first = torch.get_num_threads()
    torch.set_num_threads(3)
    home.open(ADD_SUB)
    after_second = torch.get_num_threads()
    home.open(ADD_SUB + parameter("INTRA_OP_THREAD_COUNT", "2"))

    assert (after_first, after_second, torch.get_num_threads()) == (1, 3, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (parameter("INFERENCE_MODE", "maybe"), "'INFERENCE_MODE' must be true or false"),
        (parameter("NUM_THREADS", "-2"), "'NUM_THREADS' must be a whole number"),
        (parameter("TORCH_COMPILE_OPTIONAL_PARAMETERS", "[1]"), "must be a JSON object"),
    ],
)
def test_bad_parameter_is_told(home: Home, text: str, message: str) -> None:
    home.put_script(AddSub())

    with pytest.raises(InvalidConfig, match=message):
        home.open(ADD_SUB + text)


def test_gpu_that_is_not_there_is_told(home: Home) -> None:
    home.put_script(AddSub())

    with pytest.raises(LoadFailed, match=r"asks for GPU 99"):
        home.backend.open(home.complete(ADD_SUB), home.files, Placement("m_0_0", "KIND_GPU", 99, 1))


def test_closed_instance_is_not_ready(home: Home) -> None:
    home.put_script(AddSub())
    instance = home.open(ADD_SUB)

    instance.close()

    assert not instance.is_ready()
