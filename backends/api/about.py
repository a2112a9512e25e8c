"""What a backend says of itself before it is imported: its models' files, its needs, its manners.

A backend's `about.py` is read whenever a model looks for its backend, so it imports no framework.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum, IntEnum
from pathlib import Path, PurePath

from trivet.backends.api.listing import Listing

BACKEND_FIELDS = (
    "cc_model_filenames",
    "default_model_filename",
    "input.is_shape_tensor",
    "instance_group.profile",
    "model_operations",
    "optimization.cuda",
    "optimization.execution_accelerators",
    "optimization.graph",
    "output.is_shape_tensor",
    "runtime",
)
"""Fields of a config that only backends read. The others are the server's."""
SERVER_PARAMETERS = (
    "close_timeout_s",
    "compute_batch_size",
    "embeddings_*",
    "execute_timeout_s",
    "gpu_uuids",
    "heartbeat_timeout_s",
    "idle_unload_s",
    "isolation",
    "load_timeout_s",
    "memory_pinned",
    "memory_priority",
)
"""Read for models of every backend."""


class Claim(IntEnum):
    """Why a model looks like a backend's. Where several claim it, the lowest number has it."""

    NAMED = 1
    """The config's `default_model_filename` is a file of its kind."""
    MANIFEST = 2
    """A file that says what all the others are, such as MLflow's `MLmodel`: code and models of
    other backends beside it are parts."""
    CODE = 3
    """Code of the model's own; what lies beside it are its weights."""
    FOLDER = 4
    """Several files that are one model, such as a Hugging Face folder with an ONNX file in it."""
    FILE = 5
    """A file or folder `model<suffix>`, or one of its names."""
    WORD = 6
    """A file `model.<word>`."""
    ONLY = 7
    """The only file or folder with one of its suffixes, whatever it is called."""
    MODEL_NAME = 8
    """The model's own name ends with one of its suffixes, or with `.<word>`."""
    CONTENT = 9
    """Files that look like its models."""


@dataclass(frozen=True, slots=True)
class Match:
    """That a backend claims a model, and what it takes as the model."""

    claim: Claim
    model_file: str = ""
    """The file's or folder's path in the version folder ("." is that folder itself), where that is
    not the backend's usual name. A config that gives no `default_model_filename` gets it."""


class Measure(Enum):
    """How it is known what memory a loaded model takes."""

    OUTSIDE = "outside"
    """On a GPU by how much its used memory grows while the model loads; in host memory by the
    bytes that its processes share with no others."""
    REPORT = "report"
    """Its instances say: they are `ReportsMemory`. One in a process of its own is measured from
    outside."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of the memory that models take."""

    weight_suffixes: tuple[str, ...] = ()
    """Of the files that hold weights; none: all files count."""
    files_are_least: bool = False
    """Whether a model takes at least what its weights take on disk: a load that cannot fit is then
    refused before it begins."""
    shared_on: tuple[str, ...] = ()
    """Kinds of placement (KIND_CPU, KIND_GPU) where the instances of a version share one copy of
    the weights. On others each has its own."""
    measure: Measure = Measure.OUTSIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """One backend. Only `word` and `backend` must be given; the rest has what is usual."""

    word: str
    """`backend` in configs."""
    backend: str
    """Where the Backend is, as "module:attribute". Imported when a model needs it."""

    platform: str = ""
    """Triton's word for it in the older field `platform`, which a complete config shows."""
    other_platforms: tuple[str, ...] = ()
    """More words that are taken there."""
    config_field: str = ""
    """A config with this field is its, whatever the files are."""
    suffixes: tuple[str, ...] = ()
    """Of its model files (or folders), the usual one first: `model<suffix>` is its."""
    names: tuple[str, ...] = ()
    """Names that its model files (or folders) have instead, the usual one first."""
    shared_names: tuple[str, ...] = ()
    """Names that its model files may have, too, but that other backends' files have as well."""
    recognise: Callable[[Listing], "Claim | Match | None"] | None = None
    """For models that are recognised by several files, by files below the top, or by content: one
    whose suffix others use as well. A function of the listing alone; raises OSError as that does.
    Where none of its files has a usual name, it gives a Match."""
    advise: Callable[[Listing], str | None] | None = None
    """For what looks like its kind and is not: one sentence that names the file and says what to
    do. Asked where no backend claims the model; raises OSError as the listing does."""
    made_of: Callable[[Path], frozenset[str]] | None = None
    """For models that ask others: which ones a model file names. It loads after them, and with them
    again. What cannot be read names none; raises OSError."""
    takes_any_name: bool = True
    """Whether the only file with one of its suffixes is its, whatever the rest of the name is."""
    preference: int = 100
    """Where several have the same claim, the lowest number has the model. Where that is the same,
    too, or they mean different files, nobody has it: the config must say."""

    packages: tuple[str, ...] = ()
    """What it imports, by import name, that `install` brings."""
    install: str = ""
    """What pip installs where one of `packages` is missing, such as "trivet[onnx]"."""
    compiled: str = ""
    """Of a part that is compiled at installation and that it can do without: the function, as
    "module:attribute", that says why it is not used here; "" where it is."""

    completes: frozenset[str] = frozenset()
    """Config fields that it fills in from the model's files."""
    only_reads: bool = False
    """Whether `complete` does no more than read files: it runs no code of the model's, starts
    nothing and needs no device. `trivet repo validate` then calls it."""
    fields: tuple[str, ...] | None = None
    """Which of BACKEND_FIELDS it reads; None: it does not say."""
    parameters: tuple[str, ...] | None = None
    """Which config parameters it reads, besides the server's; "session.*" for all that begin so.
    None: any, or it does not say."""
    cpu_instances: int = 1
    """Instances on the CPU where a config gives no count."""

    runs_user_code: bool = False
    """Whether models bring code. They run in processes of their own, unless parameter `isolation`
    is "none"."""
    own_process: bool = False
    """Whether its framework should not share a process with others: instances run in processes of
    their own likewise. Its configs are completed in the server, without the framework."""
    shared_imports: tuple[str, ...] | None = None
    """Instance processes are forked from one that has imported these modules and the backend's, so
    that they share the pages. To import them must start no thread. None: each is started by
    itself."""
    joins_requests: bool = True
    """Whether instances join the requests of a batch (`Batch.gather`). One that takes them one by
    one takes ragged ones in a process of its own, too."""
    builds_engines: bool = False
    """Whether its Backend is `BuildsEngines`: `trivet build-engine` asks it."""
    memory: Memory = field(default=Memory())

    @property
    def usual_isolation(self) -> str:
        """The parameter `isolation` of models that do not say."""
        return "process" if self.runs_user_code or self.own_process else "none"

    @property
    def model_files(self) -> tuple[str, ...]:
        """The names that are its alone, the usual one first."""
        return (*self.names, *(f"model{suffix}" for suffix in self.suffixes))

    @property
    def platforms(self) -> tuple[str, ...]:
        """All that it takes in `platform`."""
        return (*filter(None, (self.platform,)), *self.other_platforms)

    @property
    def reads_model_file(self) -> bool:
        """Whether `default_model_filename` means something to it."""
        return self.fields is None or "default_model_filename" in self.fields

    def match(self, listing: Listing) -> Match | None:
        """Why a version whose config names no backend looks like its, if it does. Raises
        OSError."""
        return min(self._matches(listing), key=lambda match: match.claim, default=None)

    def candidates(self, listing: Listing) -> list[str]:
        """The files with one of its suffixes, whatever they are called."""
        return listing.ending(*self.suffixes) if self.takes_any_name and self.suffixes else []

    def _matches(self, listing: Listing) -> Iterator[Match]:
        endings = (*self.suffixes, f".{self.word}")
        if listing.model_file and PurePath(listing.model_file).suffix in endings:
            yield Match(Claim.NAMED)
        usual = next((name for name in self.model_files if name in listing.names), "")
        if usual:
            yield Match(Claim.FILE, "" if usual == self.model_files[0] else usual)
        if f"model.{self.word}" in listing.names:
            yield Match(Claim.WORD)
        if len(own := self.candidates(listing)) == 1:
            yield Match(Claim.ONLY, own[0])
        if PurePath(listing.model_name).suffix in endings:
            yield Match(Claim.MODEL_NAME)
        found = self.recognise(listing) if self.recognise is not None else None
        if found is not None:
            yield Match(found) if isinstance(found, Claim) else found

    def takes_parameter(self, name: str) -> bool:
        """Whether it reads a config parameter of that name, or may."""
        return self.parameters is None or is_among(name, self.parameters)

    def likely_parameter(self, name: str) -> str:
        """What may have been meant by a parameter that nobody reads: for error texts."""
        known = sorted((*(self.parameters or ()), *SERVER_PARAMETERS))
        near = self.near_parameter(name)
        return f"did you mean '{near}'?" if near else f"it reads {', '.join(known)}"

    def near_parameter(self, name: str) -> str:
        """One that it reads and that is called alike; empty where there is none."""
        known = (*(self.parameters or ()), *SERVER_PARAMETERS)
        by_folded = {each.lower(): each for each in known}
        near = get_close_matches(name.lower(), by_folded, n=1)
        return by_folded[near[0]] if near else ""


def is_among(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name is one of these; "step.*" stands for all names that begin so."""
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in patterns
    )
