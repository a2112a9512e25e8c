from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrafficRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class SetTrafficRequest(_message.Message):
    __slots__ = ("model", "labels", "split", "sticky")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    STICKY_FIELD_NUMBER: _ClassVar[int]
    model: str
    labels: _containers.ScalarMap[str, int]
    split: _containers.RepeatedCompositeFieldContainer[Share]
    sticky: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., labels: _Optional[_Mapping[str, int]] = ..., split: _Optional[_Iterable[_Union[Share, _Mapping]]] = ..., sticky: _Optional[_Iterable[str]] = ...) -> None: ...

class Share(_message.Message):
    __slots__ = ("arm", "percent")
    ARM_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    arm: str
    percent: float
    def __init__(self, arm: _Optional[str] = ..., percent: _Optional[float] = ...) -> None: ...

class TrafficInForce(_message.Message):
    __slots__ = ("model", "labels", "split", "sticky", "arms", "differences")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    STICKY_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    model: str
    labels: _containers.ScalarMap[str, int]
    split: _containers.RepeatedCompositeFieldContainer[Share]
    sticky: _containers.RepeatedScalarFieldContainer[str]
    arms: _containers.RepeatedCompositeFieldContainer[Arm]
    differences: _containers.RepeatedCompositeFieldContainer[Difference]
    def __init__(self, model: _Optional[str] = ..., labels: _Optional[_Mapping[str, int]] = ..., split: _Optional[_Iterable[_Union[Share, _Mapping]]] = ..., sticky: _Optional[_Iterable[str]] = ..., arms: _Optional[_Iterable[_Union[Arm, _Mapping]]] = ..., differences: _Optional[_Iterable[_Union[Difference, _Mapping]]] = ...) -> None: ...

class Arm(_message.Message):
    __slots__ = ("name", "version", "requests", "errors", "mean_latency_s", "outcomes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    MEAN_LATENCY_S_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    requests: int
    errors: int
    mean_latency_s: float
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., requests: _Optional[int] = ..., errors: _Optional[int] = ..., mean_latency_s: _Optional[float] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("name", "count", "mean")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    name: str
    count: int
    mean: float
    def __init__(self, name: _Optional[str] = ..., count: _Optional[int] = ..., mean: _Optional[float] = ...) -> None: ...

class Difference(_message.Message):
    __slots__ = ("outcome", "arm", "mean", "low", "high", "chance")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    CHANCE_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    arm: str
    mean: float
    low: float
    high: float
    chance: float
    def __init__(self, outcome: _Optional[str] = ..., arm: _Optional[str] = ..., mean: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., chance: _Optional[float] = ...) -> None: ...

class RolloutsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RolloutsResponse(_message.Message):
    __slots__ = ("rollouts",)
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    rollouts: _containers.RepeatedCompositeFieldContainer[RolloutState]
    def __init__(self, rollouts: _Optional[_Iterable[_Union[RolloutState, _Mapping]]] = ...) -> None: ...

class RolloutRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class RolloutState(_message.Message):
    __slots__ = ("model", "stable", "phase", "candidate", "percent", "step", "steps", "elapsed_s", "bake_s", "samples", "min_samples", "reason", "guards", "refused", "verdicts")
    class RefusedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    class VerdictsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STABLE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    BAKE_S_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    MIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GUARDS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    stable: int
    phase: str
    candidate: int
    percent: float
    step: int
    steps: _containers.RepeatedScalarFieldContainer[float]
    elapsed_s: float
    bake_s: float
    samples: int
    min_samples: int
    reason: str
    guards: _containers.RepeatedCompositeFieldContainer[Guard]
    refused: _containers.ScalarMap[int, str]
    verdicts: _containers.ScalarMap[str, int]
    def __init__(self, model: _Optional[str] = ..., stable: _Optional[int] = ..., phase: _Optional[str] = ..., candidate: _Optional[int] = ..., percent: _Optional[float] = ..., step: _Optional[int] = ..., steps: _Optional[_Iterable[float]] = ..., elapsed_s: _Optional[float] = ..., bake_s: _Optional[float] = ..., samples: _Optional[int] = ..., min_samples: _Optional[int] = ..., reason: _Optional[str] = ..., guards: _Optional[_Iterable[_Union[Guard, _Mapping]]] = ..., refused: _Optional[_Mapping[int, str]] = ..., verdicts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Guard(_message.Message):
    __slots__ = ("name", "tolerance", "candidate", "stable", "chance")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    STABLE_FIELD_NUMBER: _ClassVar[int]
    CHANCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    tolerance: float
    candidate: Counted
    stable: Counted
    chance: float
    def __init__(self, name: _Optional[str] = ..., tolerance: _Optional[float] = ..., candidate: _Optional[_Union[Counted, _Mapping]] = ..., stable: _Optional[_Union[Counted, _Mapping]] = ..., chance: _Optional[float] = ...) -> None: ...

class Counted(_message.Message):
    __slots__ = ("requests", "events")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    requests: int
    events: int
    def __init__(self, requests: _Optional[int] = ..., events: _Optional[int] = ...) -> None: ...

class RolloutHistoryResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Happened]
    def __init__(self, records: _Optional[_Iterable[_Union[Happened, _Mapping]]] = ...) -> None: ...

class Happened(_message.Message):
    __slots__ = ("at", "by", "event", "version", "reason")
    AT_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    at: str
    by: str
    event: str
    version: int
    reason: str
    def __init__(self, at: _Optional[str] = ..., by: _Optional[str] = ..., event: _Optional[str] = ..., version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ChangeRolloutRequest(_message.Message):
    __slots__ = ("model", "command", "version", "policy", "reason")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model: str
    command: str
    version: int
    policy: Policy
    reason: str
    def __init__(self, model: _Optional[str] = ..., command: _Optional[str] = ..., version: _Optional[int] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("steps", "bake_s", "min_samples", "max_step_s", "false_alarm", "guards")
    class GuardsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BAKE_S_FIELD_NUMBER: _ClassVar[int]
    MIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    MAX_STEP_S_FIELD_NUMBER: _ClassVar[int]
    FALSE_ALARM_FIELD_NUMBER: _ClassVar[int]
    GUARDS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedScalarFieldContainer[float]
    bake_s: float
    min_samples: int
    max_step_s: float
    false_alarm: float
    guards: _containers.ScalarMap[str, float]
    def __init__(self, steps: _Optional[_Iterable[float]] = ..., bake_s: _Optional[float] = ..., min_samples: _Optional[int] = ..., max_step_s: _Optional[float] = ..., false_alarm: _Optional[float] = ..., guards: _Optional[_Mapping[str, float]] = ...) -> None: ...

class FeedbackRequest(_message.Message):
    __slots__ = ("request_id", "name", "value")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    value: float
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class FeedbackResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
