"""The blocking half of loading: files to an opened, warmed set of instances. Runs in threads."""

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from trivet.backends.api import (
    About,
    Backend,
    BackendFailed,
    Catalog,
    Composes,
    Environment,
    Instance,
    InvalidConfig,
    KnowsPlacement,
    LoadFailed,
    ModelFiles,
    Placement,
    Recipe,
    ServingError,
    UnreadableFiles,
    UsesGpus,
    WantsEnvironment,
    judged,
    storage_fault,
)
from trivet.backends.api.meters import MakesMeters, MeterStore
from trivet.backends.device.nvml import Gpus
from trivet.backends.environments.cache import USUAL_FOLDER, EnvironmentCache
from trivet.backends.registry import FoundBackend, find_backend
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from trivet.server.cache.key import digest_of_model
from trivet.server.evaluation.demand import Demands
from trivet.server.models.allowed import Allowed
from trivet.server.models.apart import completed, is_apart, starts_processes, takes_uuids
from trivet.server.models.batch_size import DefaultBatchSizes
from trivet.server.models.cpu_memory import Growth, GrowthMeter, host_bytes, reported
from trivet.server.models.file_sizes import weight_bytes
from trivet.server.models.gpu_memory import GPU_KIND, GpuLedger, LoadMemory
from trivet.server.models.host_policy import Cores, HostPolicies, on_cores
from trivet.server.models.labels import read_labels
from trivet.server.models.load_plan import LoadPlan
from trivet.server.models.sleeping.budget import Sizes
from trivet.server.models.traffic import read_traffic
from trivet.server.models.unread import warn_of_unread
from trivet.server.models.warmup import warm
from trivet.server.repository import config as configs
from trivet.server.repository.check import check
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.steps import parts_of
from trivet.server.scheduling.rate_limit import ResourceLimits
from trivet.server.scheduling.sequences.plan import SequencePlan

log = logging.getLogger(__name__)


class NotMade(Exception):
    """A version needs an environment that is to be made before it can be opened."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        super().__init__(recipe.key)


@dataclass(frozen=True, slots=True)
class Opened:
    """A version's instances and what was learnt while opening them."""

    config: ModelConfig
    instances: Sequence[tuple[str, Instance]]
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sequences: SequencePlan | None = None
    """For a model with `sequence_batching`."""
    cores: Mapping[str, Cores] = field(default_factory=dict)
    """By instance, for those that have a host policy."""
    digest: bytes = b""
    """Of config and files, for a model that is cached."""
    gpu_memory: LoadMemory = field(default_factory=LoadMemory)
    cpu_memory_bytes: int = 0
    """Of the instances' own processes."""
    sizes: Sizes = field(default_factory=dict)
    """What would be free without it, as far as that can be told; of one inside the server with a
    budget only."""

    def close(self) -> None:
        """Of one that is not served. Blocking."""
        for _, instance in self.instances:
            instance.close()


class NamespacedCatalog(Protocol):
    """Catalogs for models of any namespace."""

    def within(self, namespace: str) -> Catalog:
        """For a model of this one; empty without namespaces."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of a version before its instances are opened."""

    about: About
    backend: Backend
    config: ModelConfig
    """Complete and checked."""
    labels: Mapping[str, Sequence[str]]
    sequences: SequencePlan | None


@dataclass(frozen=True, slots=True)
class Loader:
    """Opens model versions."""

    catalog: NamespacedCatalog
    """What ensembles are made of."""
    auto_complete: bool = True
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By backend word: parameters of models whose config does not give them."""
    limits: ResourceLimits | None = None
    """With --rate-limit."""
    caches: bool = False
    """Whether there is a response cache."""
    config_name: str = ""
    """Of `--model-config-name`."""
    policies: HostPolicies = field(default_factory=HostPolicies)
    """Of `--host-policy`."""
    meters: MeterStore | None = None
    """For metrics that models make up."""
    batch_sizes: DefaultBatchSizes = field(default_factory=DefaultBatchSizes)
    """Of models whose config and file give none."""
    allowed: Allowed = field(default_factory=Allowed)
    environments: EnvironmentCache = field(default_factory=lambda: EnvironmentCache(USUAL_FOLDER))
    gpus: GpuLedger = field(default_factory=lambda: GpuLedger(Gpus.none("none were looked for")))
    meter: GrowthMeter | None = None
    """With --model-memory-budget."""
    demands: Demands | None = None
    """Of models with a gate; None: gates are of no concern."""

    def plan(self, folder: ModelFolder, override_json: str | None) -> LoadPlan:
        """Reads the config and chooses versions. Raises InvalidConfig, UnreadableFiles or
        LoadFailed."""
        if folder.is_flat and not folder.lone:
            log.info(
                "model '%s' has no version folder: its files are taken as version 1", folder.name
            )
        try:
            given = configs.config_of(folder, override_json, self.config_name)
        except InvalidConfig as error:
            raise judged(error) from error.__cause__
        traffic = read_traffic(folder)
        versions = traffic.among(configs.select_versions(given, folder.versions))
        if not versions:
            raise LoadFailed(f"failed to load '{folder.name}', {configs.no_version(folder)}")
        steps = parts_of(given, folder, versions)
        demand = self.demands.of(folder, sorted(folder.versions)) if self.demands else None
        is_overridden = override_json is not None
        return LoadPlan(folder, given, versions, steps, is_overridden, traffic, demand)

    def open(self, plan: LoadPlan, version: int) -> Opened:
        """Completes the config and opens, then warms, all instances of a version.

        Raises NotMade, a ServingError, UnreadableFiles where the disk is at fault; other foreign
        exceptions are logged and become LoadFailed.
        """
        files = self.allowed.files(plan.folder, version, is_overridden=plan.is_overridden)
        try:
            return self._open(plan, files)
        except NotMade:
            raise
        except ServingError as error:
            raise judged(error) from error.__cause__
        except Exception as error:
            if storage_fault(error):
                raise _unreadable(plan, version, error) from error
            log.exception("loading model '%s' version %d failed", plan.folder.name, version)
            raise LoadFailed(
                f"loading model '{plan.folder.name}' version {version} failed unexpectedly; "
                "the server log has the details"
            ) from None

    def make(self, recipe: Recipe, stop: threading.Event) -> None:
        """Makes an environment that `open` lacked, which may take minutes; `stop` has it give up.
        Raises a ServingError as `open` does."""
        try:
            self.environments.make(recipe, stop)
        except ServingError as error:
            raise judged(error) from error.__cause__
        except Exception:
            log.exception("the environment of model '%s' cannot be made", recipe.model)
            raise LoadFailed(
                f"the environment of model '{recipe.model}' cannot be made; the server log has the "
                "details"
            ) from None

    def prepare(self, plan: LoadPlan, files: ModelFiles, found: FoundBackend) -> Prepared:
        """All that is decided before anything is opened: a complete config, checked. Runs code of
        the model's own only where its backend completes configs by that. Raises a ServingError."""
        about, backend = found.about, found.backend
        given = self._given(plan, found)
        if isinstance(backend, MakesMeters) and self.meters is not None:
            backend = backend.metered(self.meters)
        composed = None
        if isinstance(backend, Composes):
            composed = backend.composed(self.catalog.within(plan.folder.namespace))
        backend = composed or backend
        # What an ensemble lacks is in its steps' configs, however strict these are.
        must_complete = self.auto_complete or composed is not None
        if must_complete:
            self.batch_sizes.ask(given, about)
            complete = completed(about, backend, given, files)
            self.batch_sizes.settle(given, complete)
        else:
            complete = given
        num_gpus = self._num_gpus(backend, complete)
        config = configs.normalise(complete, about, num_gpus=num_gpus)
        if isinstance(backend, KnowsPlacement):
            config = backend.placed(config, files)
        check(config, about)
        labels = read_labels(config, files)
        if composed is not None:
            labels = {**composed.labels(given), **labels}
        return Prepared(about, backend, config, labels, SequencePlan.read(config, files))

    def _open(self, plan: LoadPlan, files: ModelFiles) -> Opened:
        found = find_backend(plan.given, files)
        files = self._equipped(plan, files, found)
        # A load whose environment has to be made first comes here again.
        warn_of_unread(plan.given, found.about, is_namespaced=bool(plan.folder.namespace))
        prepared = self.prepare(plan, files, found)
        about, backend, config = prepared.about, prepared.backend, prepared.config
        labels, sequences = prepared.labels, prepared.sequences
        if self.limits is not None:
            self.limits.check(config, configs.instances(config))
        is_cached = self.caches and config.response_cache.enable
        digest = digest_of_model(config, files) if is_cached else b""
        placements = configs.instances(config)
        self._check_placements(config, placements)
        if placements and placements[0].device_uuid and not takes_uuids(backend, config):
            raise InvalidConfig(
                f"model '{config.name}': backend '{about.word}' takes no parameter "
                f"{configs.GPU_UUIDS}; start a server with CUDA_VISIBLE_DEVICES set to that device"
            )
        measure = about.memory.measure
        loading = self.gpus.loading(config.name, about.memory, files, placements)
        with self._grows(about, backend, config) as grown, loading as memory:
            named = self._open_instances(about, backend, config, files, sequences)
            instances = [instance for _, instance in named]
            memory.told = reported(instances, measure)
        cpu_memory_bytes = host_bytes(instances, measure)
        pins = self._pins(config)
        sizes: dict[int | None, int] = {i.number: size for i, size in memory.taken.items()}
        sizes[None] = cpu_memory_bytes
        if not cpu_memory_bytes and self.meter is not None:
            sizes[None] = max(grown.size_bytes, weight_bytes(files, about.memory))
        return Opened(
            config, named, labels, sequences, pins, digest, memory, cpu_memory_bytes, sizes
        )

    def _grows(
        self, about: About, backend: Backend, config: ModelConfig
    ) -> AbstractContextManager[Growth]:
        """Instances inside the server, where somebody wants to know what they take."""
        is_outside = is_apart(about, config) or starts_processes(backend, config)
        return nullcontext(Growth()) if self.meter is None or is_outside else self.meter.measured()

    def estimate(self, plan: LoadPlan, version: int) -> Sizes:
        """What a version will take at least, by its files. Raises a ServingError."""
        files = self.allowed.files(plan.folder, version, is_overridden=plan.is_overridden)
        try:
            known = find_backend(plan.given, files).about.memory
            return {None: weight_bytes(files, known)}
        except OSError as error:
            raise _unreadable(plan, version, error) from error

    def _equipped(self, plan: LoadPlan, files: ModelFiles, found: FoundBackend) -> ModelFiles:
        """With the environment that the model is to run in. Raises NotMade."""
        if not isinstance(found.backend, WantsEnvironment):
            return files
        given = self._given(plan, found)
        wanted = found.backend.environment(given, files)
        if wanted is None or isinstance(wanted, Environment):
            return replace(files, environment=wanted)
        made = self.environments.find(wanted)
        if made is None:
            raise NotMade(wanted)
        return replace(files, environment=made)

    def _given(self, plan: LoadPlan, found: FoundBackend) -> ModelConfig:
        """The config as written, with its backend and what the server's options add."""
        given, config = ModelConfig(), plan.given
        given.CopyFrom(config)
        given.backend = found.about.word
        if found.model_file:
            given.default_model_filename = found.model_file
        for name, value in self.parameters.get(found.about.word, {}).items():
            if name not in given.parameters:
                given.parameters[name].string_value = value
        return given

    def _open_instances(
        self,
        about: About,
        backend: Backend,
        config: ModelConfig,
        files: ModelFiles,
        sequences: SequencePlan | None,
    ) -> list[tuple[str, Instance]]:
        instances: list[tuple[str, Instance]] = []
        pins = self._pins(config)
        try:
            for placement in configs.instances(config):
                cores = pins.get(placement.name)
                # Threads and processes that the instance starts now inherit the cores.
                with on_cores(cores):
                    placed = placement if cores is None else _shared_out(placement, pins)
                    instance = self._open_instance(about, backend, config, files, placed)
                    instances.append((placement.name, instance))
                    warm(instance, config, files, sequences)
        except BaseException:
            for _, instance in instances:
                instance.close()
            raise
        return instances

    def _pins(self, config: ModelConfig) -> dict[str, Cores]:
        """The cores of those instances that may not use any."""
        if config.HasField("ensemble_scheduling"):
            return {}
        found = ((each.name, self.policies.cores_of(each)) for each in configs.instances(config))
        return {name: cores for name, cores in found if cores is not None}

    def _num_gpus(self, backend: Backend, config: ModelConfig) -> int:
        """How many GPUs instances of KIND_AUTO may go to, and those of KIND_GPU that name none."""
        asks = any(group.kind == ModelInstanceGroup.KIND_GPU for group in config.instance_group)
        gpus = self.gpus.gpus.all
        can_use = isinstance(backend, UsesGpus) and bool(gpus) and backend.can_use_gpus()
        return len(gpus) if asks or can_use else 0

    def _check_placements(self, config: ModelConfig, placements: Sequence[Placement]) -> None:
        gpus = self.gpus.gpus
        if not placements and any(not group.passive for group in config.instance_group):
            raise LoadFailed(
                f"model '{config.name}': instance_group asks for KIND_GPU, but no GPU was found: "
                f"{gpus.why_none}. Name GPUs in instance_group.gpus, or use KIND_CPU"
            )
        for placement in placements:
            if placement.kind != GPU_KIND or not gpus.all or placement.device_uuid:
                continue
            if gpus.by_number(placement.device_id) is None:
                listed = ", ".join(f"{info.number} ({info.name})" for info in gpus.all)
                raise LoadFailed(
                    f"model '{config.name}': instance '{placement.name}' is placed on GPU "
                    f"{placement.device_id}, but the GPUs here are {listed} (instance_group.gpus; "
                    "numbers are those of CUDA_VISIBLE_DEVICES)"
                )

    def _open_instance(
        self,
        about: About,
        backend: Backend,
        config: ModelConfig,
        files: ModelFiles,
        placement: Placement,
    ) -> Instance:
        try:
            # A process sees one MIG device only, and chooses it when it starts.
            is_own = is_apart(about, config) or placement.device_uuid
            if is_own and not starts_processes(backend, config):
                from trivet.backends.process import open_isolated

                return open_isolated(about.word, config, files, placement)
            return backend.open(config, files, placement)
        except BackendFailed as error:
            raise LoadFailed(error.message) from error


def _unreadable(plan: LoadPlan, version: int, error: Exception) -> UnreadableFiles:
    """Without the folder's path, which is no client's matter."""
    file = "its files"
    if isinstance(error, OSError) and isinstance(error.filename, str):
        file = f"'{Path(error.filename).name}'"
    return UnreadableFiles(
        f"model '{plan.folder.name}' version {version}: {file} cannot be read: "
        f"{storage_fault(error)}"
    )


def _shared_out(placement: Placement, pins: Mapping[str, Cores]) -> Placement:
    """With as many threads as it has cores, over the instances that share them."""
    cores = pins[placement.name]
    num_sharing = list(pins.values()).count(cores)
    return replace(placement, cpu_threads=max(1, len(cores) // num_sharing))
