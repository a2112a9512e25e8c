"""Engines in use, on the twin of a GPU: profiles, shape tensors, growing outputs, CUDA graphs."""

from pathlib import Path

import numpy as np
import pytest
from device_twin import TwinDevice
from fake_tensorrt import FakeTensorRt, plan, write_plan

from trivet.backends.api import (
    BackendFailed,
    Batch,
    CheckedRequest,
    CopyKind,
    DataType,
    DeviceTensor,
    InvalidConfig,
    InvalidRequest,
    LoadFailed,
    ModelFiles,
    Residence,
    Tensor,
    Unavailable,
)
from trivet.backends.device.driver import Gpu
from trivet.backends.tensorrt.about import ABOUT
from trivet.backends.tensorrt.backend import TensorRtBackend
from trivet.backends.tensorrt.description import Description, EngineTensor, Range
from trivet.backends.tensorrt.instance import TensorRtInstance
from trivet.backends.tensorrt.profiles import runs_of
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from trivet.server.models.validate import validate
from trivet.server.repository.config import instances, normalise, parse_config, read_config

TWO_PROFILES = [{"x": ((1, 4), (2, 4), (4, 4))}, {"x": ((4, 4), (16, 4), (32, 4))}]
GPU_GROUP = "instance_group { kind: KIND_GPU gpus: [0] }"


class Site:
    """A backend over a fake TensorRT and the twin."""

    def __init__(self, root: Path, total_bytes: int = 1 << 24) -> None:
        self.root = root
        self.device = TwinDevice(total_bytes=total_bytes)
        self.fake = FakeTensorRt(self.device)
        self.backend = TensorRtBackend(lambda: self.fake.library, lambda _: self.device)
        self.config = ModelConfig()

    def open(self, content: bytes, config: str = "") -> TensorRtInstance:
        folder = write_plan(self.root, content, f"{config}\n{GPU_GROUP}")
        files = ModelFiles(folder, 1)
        given = read_config(folder)
        given.backend = "tensorrt"
        self.config = normalise(self.backend.complete(given, files), ABOUT)
        return self.backend.open(self.config, files, instances(self.config)[0])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def batch_of(
    *inputs: dict[str, np.ndarray], batching: bool = True, residence: Residence | None = None
) -> Batch:
    requests = []
    for each in inputs:
        tensors = {name: Tensor.of(name, values) for name, values in each.items()}
        size = len(next(iter(each.values()))) if batching else 1
        wanted = {} if residence is None else {"y": residence}
        request = CheckedRequest("engine", 1, "", tensors, batch_size=size, residence=wanted)
        requests.append(request)
    return Batch(requests, batching=batching)


def rows(count: int, first: float = 1) -> np.ndarray:
    return np.arange(first, first + count * 4, dtype=np.float32).reshape(count, 4)


def test_requests_are_computed_as_one_batch(site: Site) -> None:
    instance = site.open(plan())
    batch = batch_of({"x": rows(1)}, {"x": rows(2, 9)})
    instance.execute(batch)
    assert [o[0].numpy().tolist() for o in batch.outputs] == [
        (rows(1) * 2).tolist(), (rows(2, 9) * 2).tolist(),
    ]  # fmt: skip
    assert site.fake.engines[-1].num_runs == 1
    assert batch.synchronisations == 1


def test_the_config_comes_from_the_engine(site: Site) -> None:
    site.open(plan(profiles=TWO_PROFILES))
    assert site.config.max_batch_size == 32
    assert [(t.name, list(t.dims)) for t in site.config.input] == [("x", [4])]
    assert site.config.HasField("dynamic_batching")
    assert site.config.platform == "tensorrt_plan"


def test_a_batch_that_no_profile_holds_is_refused_at_load(site: Site) -> None:
    with pytest.raises(InvalidConfig, match=r"max_batch_size is 64, .* batches of up to 8"):
        site.open(plan(), "max_batch_size: 64")


def test_the_profile_with_the_nearest_best_shape_computes(site: Site) -> None:
    instance = site.open(plan(profiles=TWO_PROFILES))
    engine = site.fake.engines[-1]
    for size in (1, 4, 20):
        instance.execute(batch_of({"x": rows(size)}))
    assert engine.num_runs == 3
    assert engine.num_contexts == 2


def test_an_instance_group_chooses_profiles(tmp_path: Path) -> None:
    site = Site(tmp_path)
    folder = write_plan(tmp_path, plan(profiles=TWO_PROFILES))
    config = parse_config(
        'name: "engine" max_batch_size: 32 instance_group { kind: KIND_GPU gpus: 0 profile: "1" }',
        "config.pbtxt",
    )
    files = ModelFiles(folder, 1)
    full = normalise(site.backend.complete(config, files))
    instance = site.backend.open(full, files, instances(full)[0])
    with pytest.raises(InvalidRequest, match=r"not built for x \[1, 4\]; it takes profile 1"):
        instance.execute(batch_of({"x": rows(1)}))
    full.instance_group[0].profile[0] = "7"
    with pytest.raises(InvalidConfig, match=r"profile is '7', but the engine has 2"):
        site.backend.open(full, files, instances(full)[0])


def test_a_shape_tensor_s_values_are_read_on_the_host(site: Site) -> None:
    reshaping = plan(
        "reshape",
        inputs={"x": (-1, 4), "s": (2,)},
        outputs={"y": (-1, -1)},
        profiles=[{"x": ((1, 4), (2, 4), (8, 4)), "s": ((1, 1), (2, 4), (8, 32))}],
        shape_tensors=["s"],
    )
    instance = site.open(reshaping)
    assert site.config.input[1].is_shape_tensor
    assert list(site.config.input[1].dims) == [1], "clients leave the batch size out"
    # Two requests that agree are one run; the batch size is put before their values.
    batch = batch_of({"x": rows(1), "s": np.array([[4]])}, {"x": rows(1, 5), "s": np.array([[4]])})
    instance.execute(batch)
    assert site.fake.engines[-1].num_runs == 1
    assert batch.outputs[1][0].numpy().tolist() == [[5, 6, 7, 8]]


def test_requests_with_other_shape_values_are_computed_apart(site: Site) -> None:
    instance = site.open(
        plan(
            "reshape",
            inputs={"x": (-1, 4), "s": (3,)},
            outputs={"y": (-1, -1, -1)},
            profiles=[{"x": ((1, 4), (2, 4), (8, 4)), "s": ((1, 1, 1), (1, 2, 2), (8, 4, 4))}],
            shape_tensors=["s"],
        )
    )
    batch = batch_of(
        {"x": rows(1), "s": np.array([[2, 2]])}, {"x": rows(1, 5), "s": np.array([[4, 1]])}
    )
    instance.execute(batch)
    assert [o[0].shape for o in batch.outputs] == [(1, 2, 2), (1, 4, 1)]
    uneven = batch_of({"x": rows(2), "s": np.array([[2, 2], [4, 1]])})
    with pytest.raises(InvalidRequest, match="its rows must be equal within a request"):
        instance.execute(uneven)


def test_an_output_whose_shape_only_the_run_shows(site: Site) -> None:
    instance = site.open(
        plan("nonzero", inputs={"x": (-1,)}, outputs={"y": (-1,)},
             profiles=[{"x": ((1,), (4,), (8,))}]),
        'max_batch_size: 0 input { name: "x" data_type: TYPE_FP32 dims: [-1] }',
    )  # fmt: skip
    for values, expected in (([0, 3, 0, 5], [3, 5]), ([0, 0], []), ([7], [7])):
        batch = batch_of({"x": np.array(values, np.float32)}, batching=False)
        instance.execute(batch)
        assert batch.outputs[0][0].numpy().tolist() == expected
        assert batch.synchronisations == 2


def test_outputs_may_stay_on_the_device(site: Site) -> None:
    instance = site.open(plan())
    batch = batch_of({"x": rows(2)}, residence=Residence.DEVICE)
    instance.execute(batch)
    output = batch.outputs[0][0]
    assert isinstance(output, DeviceTensor)
    assert batch.synchronisations == 0
    assert CopyKind.DEVICE_TO_HOST not in batch.copies
    assert output.numpy().tolist() == (rows(2) * 2).tolist()


def test_rows_of_another_model_s_batch_are_aligned_for_the_engine(site: Site) -> None:
    instance = site.open(plan())
    made = batch_of({"x": rows(1)}, {"x": rows(1, 5)}, residence=Residence.DEVICE)
    instance.execute(made)
    # The second request's row begins 16 bytes into the batch's memory.
    row = made.outputs[1][0].under("x")
    batch = Batch([CheckedRequest("engine", 1, "", {"x": row})], batching=True)
    instance.execute(batch)
    assert batch.outputs[0][0].numpy().tolist() == (rows(1, 5) * 4).tolist()
    assert batch.copies[CopyKind.DEVICE] == 16


GRAPHS = """
optimization { cuda { graphs: true
  graph_spec { batch_size: 4 graph_lower_bound { batch_size: 2 } }
  graph_spec { batch_size: 1 } } }
"""


def test_a_graph_per_bucket_computes_what_it_holds(site: Site) -> None:
    instance = site.open(plan(), GRAPHS)
    small, large = site.device.graphs
    for size, launches in ((1, (1, 0)), (2, (1, 1)), (3, (1, 2)), (4, (1, 3)), (8, (1, 3))):
        batch = batch_of({"x": rows(size, size)})
        instance.execute(batch)
        assert batch.outputs[0][0].numpy().tolist() == (rows(size, size) * 2).tolist()
        assert (small.num_launches, large.num_launches) == launches
    instance.close()
    assert small.is_closed
    assert large.is_closed


def test_a_graph_needs_shapes_without_variable_dimensions(site: Site) -> None:
    wide = plan(inputs={"x": (-1, -1)}, profiles=[{"x": ((1, 1), (4, 4), (8, 8))}])
    with pytest.raises(InvalidConfig, match=r"graph_spec gives input 'x' the shape \[1, -1\]"):
        site.open(wide, "optimization { cuda { graphs: true } }")
    instance = site.open(
        wide,
        "optimization { cuda { graphs: true graph_spec { batch_size: 2 "
        'input { key: "x" value { dim: [4] } } } } }',
    )
    instance.execute(batch_of({"x": rows(2)}))
    assert site.device.graphs[-1].num_launches == 1


def test_instances_on_a_gpu_share_the_engine_s_weights(site: Site) -> None:
    first = site.open(plan())
    folder = site.root / "engine"
    second = site.backend.open(site.config, ModelFiles(folder, 1), instances(site.config)[0])
    # One was opened to complete the config, the other is both instances'.
    assert len(site.fake.engines) == 2
    for instance in (first, second):
        instance.execute(batch_of({"x": rows(1)}))
        instance.close()


def test_all_memory_is_given_back(site: Site) -> None:
    instance = site.open(plan(), GRAPHS)
    for size in (1, 3, 8):
        instance.execute(batch_of({"x": rows(size)}))
    instance.close()
    del instance
    for stream in site.device.streams.values():
        stream.run_all()
    assert site.device.used_bytes == 0


def test_a_context_that_does_not_fit_says_what_it_needs(tmp_path: Path) -> None:
    site = Site(tmp_path, total_bytes=64 << 20)
    with pytest.raises(LoadFailed, match=r"it needs 96 MiB, and 64 of the GPU's 64 MiB are free"):
        site.open(plan(context_bytes=96 << 20))


def test_a_batch_that_does_not_fit_fails_alone(tmp_path: Path) -> None:
    site = Site(tmp_path, total_bytes=200)
    instance = site.open(plan())
    with pytest.raises(Unavailable, match=r"this batch did not fit: .* lower max_batch_size"):
        instance.execute(batch_of({"x": rows(8)}))
    batch = batch_of({"x": rows(1)})
    instance.execute(batch)
    assert batch.outputs[0][0].numpy().tolist() == (rows(1) * 2).tolist()


def test_what_tensorrt_says_of_a_failed_run_is_told(site: Site) -> None:
    instance = site.open(plan())
    site.fake.engines[-1].fails_with = "Cuda failure: illegal instruction"
    with pytest.raises(BackendFailed, match="could not run the engine: Cuda failure: illegal"):
        instance.execute(batch_of({"x": rows(1)}))


def test_a_plan_for_another_library_gpu_or_version_says_which(site: Site) -> None:
    with pytest.raises(LoadFailed, match=r"is no TensorRT engine .*trivet build-engine"):
        site.open(b"not a plan, but long enough to be one, is it")
    with pytest.raises(LoadFailed, match=r"was made by TensorRT-RTX, but TensorRT 10.13"):
        site.open(b"vtrt" + plan()[4:])
    site.fake.refuses_with = "Serialization assertion failed"
    with pytest.raises(LoadFailed, match=r"made by version 9\.1\.0\.35: build it again"):
        site.open(plan(version=bytes((9, 1, 0, 35))))


def test_a_plan_where_no_gpu_is_says_what_to_serve_instead(site: Site) -> None:
    def no_gpu(_: int) -> Gpu:
        raise LoadFailed("GPU 0 cannot be used: scripted")

    backend = TensorRtBackend(lambda: site.fake.library, no_gpu)
    folder = write_plan(site.root, plan(), GPU_GROUP)
    told = (
        r"'model.plan' is an engine of TensorRT.* cannot be used: scripted; .*serve the ONNX model"
    )
    with pytest.raises(LoadFailed, match=told):
        backend.complete(read_config(folder), ModelFiles(folder, 1))
    (folder / "1" / "model.plan").write_bytes(b"no plan")
    with pytest.raises(LoadFailed, match=r"is no TensorRT engine"):
        backend.complete(read_config(folder), ModelFiles(folder, 1))


def test_the_note_tells_of_an_engine_for_another_gpu(site: Site) -> None:
    folder = write_plan(site.root, plan(), GPU_GROUP)
    instance_config = site.backend.complete(read_config(folder), ModelFiles(folder, 1))
    assert instance_config.max_batch_size == 8
    description = site.backend._engines  # noqa: F841 - the engine is dropped with it

    x = EngineTensor("x", DataType.FP32, (-1, 4))
    y = EngineTensor("y", DataType.FP32, (-1, 4))
    ranges = {"x": Range((1, 4), (2, 4), (6, 4))}
    note = Description((x,), (y,), (ranges,), 0, "TensorRT 10.13.0.35", ("8.6", "8.9"))
    (folder / "1" / "model.plan.json").write_text(note.to_json())
    completed = site.backend.complete(read_config(folder), ModelFiles(folder, 1))
    assert completed.max_batch_size == 6, "read from the note, without the engine"
    full = normalise(completed)
    with pytest.raises(LoadFailed, match=r"compute capability 8.6, 8.9, but this GPU has 9.0"):
        TensorRtBackend(lambda: site.fake.library, lambda _: site.device).open(
            full, ModelFiles(folder, 1), instances(full)[0]
        )
    (folder / "1" / "model.plan.json").write_text("{}")
    with pytest.raises(LoadFailed, match=r"model.plan.json' beside 'model.plan' is damaged"):
        site.backend.complete(read_config(folder), ModelFiles(folder, 1))


def test_the_file_for_the_gpu_is_chosen_by_compute_capability(site: Site) -> None:
    names = 'cc_model_filenames { key: "9.0" value: "hopper.plan" }'
    folder = write_plan(site.root, plan(), f"{names} {GPU_GROUP}", "hopper.plan")
    completed = site.backend.complete(read_config(folder), ModelFiles(folder, 1))
    assert completed.max_batch_size == 8
    (folder / "config.pbtxt").write_text(f"{names.replace('9.0', '8.6')} {GPU_GROUP}")
    with pytest.raises(InvalidConfig, match=r"has files for compute capability 8.6, but GPU 0 has"):
        site.backend.complete(read_config(folder), ModelFiles(folder, 1))


def test_only_the_config_lets_an_engine_bring_code(site: Site) -> None:
    site.open(plan())
    site.open(plan(), 'parameters { key: "version_compatible" value { string_value: "true" } }')
    assert site.fake.host_code_allowed == [False, False, True, True]


def test_on_the_cpu_it_says_where_engines_run(site: Site) -> None:
    site.open(plan())
    folder = site.root / "engine"
    site.config.instance_group[0].kind = ModelInstanceGroup.KIND_CPU
    with pytest.raises(LoadFailed, match=r"GPUs only, but instance 'engine_0' is placed as KIND_"):
        site.backend.open(site.config, ModelFiles(folder, 1), instances(site.config)[0])


def test_types_that_requests_lack_are_refused(site: Site) -> None:
    with pytest.raises(InvalidConfig, match="'x' of the engine has TensorRT type FP8"):
        site.open(plan(types={"x": "FP8"}))


def test_on_devices_by_uuid_the_note_is_needed(site: Site) -> None:
    uuids = 'parameters { key: "gpu_uuids" value { string_value: "MIG-1" } }'
    with pytest.raises(InvalidConfig, match=r"needs its note, model.plan.json, which trivet build"):
        site.open(plan(), uuids)


LONG_OR_MANY = plan(
    inputs={"x": (-1, -1)},
    profiles=[{"x": ((1, 1), (2, 4), (4, 8))}, {"x": ((1, 1), (16, 2), (32, 4))}],
)
"""Up to 4 rows of 8 values, or 32 of 4."""


def wide(count: int, first: float) -> np.ndarray:
    return np.arange(first, first + count * 8, dtype=np.float32).reshape(count, 8)


def test_requests_that_no_profile_holds_together_are_computed_in_runs_that_one_holds(
    site: Site,
) -> None:
    instance = site.open(LONG_OR_MANY)
    assert site.config.max_batch_size == 32
    given = [wide(2, first) for first in (0, 100, 200)]
    batch = batch_of(*({"x": each} for each in given))
    instance.execute(batch)
    assert [o[0].numpy().tolist() for o in batch.outputs] == [(x * 2).tolist() for x in given]
    assert not batch.errors
    assert site.fake.engines[-1].num_runs == 2
    # Shorter ones go together.
    batch = batch_of(*({"x": rows(2)} for _ in range(3)))
    instance.execute(batch)
    assert site.fake.engines[-1].num_runs == 3


def test_what_no_profile_holds_by_itself_fails_alone(site: Site) -> None:
    instance = site.open(LONG_OR_MANY)
    batch = batch_of({"x": wide(2, 0)}, {"x": wide(5, 100)}, {"x": wide(1, 200)})
    instance.execute(batch)
    assert list(batch.errors) == [1]
    assert "not built for x [5, 8]" in batch.errors[1].message
    answers = [batch.outputs[index][0].numpy().tolist() for index in (0, 2)]
    assert answers == [(wide(2, 0) * 2).tolist(), (wide(1, 200) * 2).tolist()]


@pytest.mark.parametrize(
    ("sizes", "held", "runs"),
    [
        ([1] * 6, range(1, 5), [4, 2]),
        ([3, 3, 1], range(1, 5), [1, 2]),
        ([1] * 10, {1, 2, 3, 4, 16}, [4, 4, 2]),  # nothing holds 5 to 15
        ([1, 1, 2, 8], range(4, 9), [3, 1]),  # nothing holds less than 4
        ([9, 1], range(1, 5), [1, 1]),
    ],
)
def test_runs_are_as_long_as_a_profile_holds(
    sizes: list[int], held: set[int], runs: list[int]
) -> None:
    assert [len(each) for each in runs_of(sizes, lambda size: size in held)] == runs


def test_validate_reads_the_note_beside_a_plan(tmp_path: Path) -> None:
    x, y = (EngineTensor(name, DataType.FP32, (-1, 4)) for name in "xy")
    ranges = {"x": Range((1, 4), (2, 4), (6, 4))}
    note = Description((x,), (y,), (ranges,), 0, "TensorRT 10.13.0.35", ("8.6",))
    folder = write_plan(tmp_path, plan(), f"max_batch_size: 6 {GPU_GROUP}")
    (folder / "1" / "model.plan.json").write_text(note.to_json())
    assert validate([tmp_path]) == []
    for config, told in (
        ("max_batch_size: 64", "max_batch_size is 64, but the engine's profiles take batches of"),
        ('input { name: "z" data_type: TYPE_FP32 dims: [4] }', "z"),
        ('instance_group { kind: KIND_GPU gpus: [0] profile: "3" }', "profile is '3'"),
    ):
        (folder / "config.pbtxt").write_text(config)
        (found,) = validate([tmp_path])
        assert (found.severity, found.code) == ("error", "model-file")
        assert told in found.message
    (folder / "config.pbtxt").write_text("")
    (folder / "1" / "model.plan.json").write_text("{}")
    assert "damaged" in validate([tmp_path])[0].message
    (folder / "1" / "model.plan").write_bytes(b"swordfish")
    assert "is no TensorRT engine" in validate([tmp_path])[0].message
