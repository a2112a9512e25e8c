"""The model configuration as user code reads and completes it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

ConfigDict = dict[str, Any]

_INPUT_PROPERTIES = ("name", "data_type", "dims", "optional")
_OUTPUT_PROPERTIES = ("name", "data_type", "dims")
_REQUIRED = ("name", "data_type", "dims")


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> ConfigDict | None:
    """The config of the input of that name, or None."""
    return _by_name(model_config.get("input", ()), name)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> ConfigDict | None:
    """The config of the output of that name, or None."""
    return _by_name(model_config.get("output", ()), name)


def using_decoupled_model_transaction_policy(model_config: Mapping[str, Any]) -> bool:
    """Whether a request may get any number of responses."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


class ModelConfig:
    """What `auto_complete_config` fills in. The setters refuse to contradict the config file."""

    def __init__(self, model_config: str) -> None:
        self._config: ConfigDict = json.loads(model_config)
        self._config.setdefault("max_batch_size", 0)
        self._config.setdefault("input", [])
        self._config.setdefault("output", [])

    def as_dict(self) -> ConfigDict:
        """The configuration with the field names of config.pbtxt. For reading only."""
        return self._config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Raises ValueError when the config file asks for more."""
        given = self._config["max_batch_size"]
        if given > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {given}, but in auto-complete-config "
                f"function for model '{self._name}' specified max_batch_size {max_batch_size}"
            )
        self._config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Switches the dynamic batcher on; raises ValueError if another scheduler is set."""
        for scheduler in ("sequence_batching", "ensemble_scheduling"):
            if scheduler in self._config:
                raise ValueError(
                    f"Configuration specified scheduling_choice as '{scheduler}', but "
                    f"auto-complete-config function for model '{self._name}' tries to set "
                    "scheduling_choice as 'dynamic_batching'"
                )
        self._config.setdefault("dynamic_batching", {})

    def add_input(self, input: ConfigDict) -> None:  # noqa: A002 - Triton's name
        """Adds an input, or fills in what the config file leaves open of the one of its name.

        Properties: name, data_type ("TYPE_FP32"), dims, optional. Raises ValueError.
        """
        self._check_properties("input", input, _INPUT_PROPERTIES)
        self._add("input", input)

    def add_output(self, output: ConfigDict) -> None:
        """Adds an output, or fills in what the config file leaves open of the one of its name.

        Properties: name, data_type ("TYPE_FP32"), dims. Raises ValueError.
        """
        self._check_properties("output", output, _OUTPUT_PROPERTIES)
        self._add("output", output)

    def set_model_transaction_policy(self, transaction_policy_dict: ConfigDict) -> None:
        """Property: decoupled. Raises ValueError when the config file says otherwise."""
        if set(transaction_policy_dict) - {"decoupled"}:
            raise ValueError(
                "model transaction property in auto-complete-config function for model "
                f"'{self._name}' contains property other than 'decoupled'."
            )
        policy = self._config.setdefault("model_transaction_policy", {})
        if "decoupled" not in transaction_policy_dict:
            return
        decoupled = transaction_policy_dict["decoupled"]
        if policy.setdefault("decoupled", decoupled) != decoupled:
            raise ValueError(
                f"trying to change decoupled property in auto-complete-config for model "
                f"'{self._name}', which is already set to '{policy['decoupled']}'."
            )

    @property
    def _name(self) -> str:
        return str(self._config.get("name", ""))

    def _check_properties(self, kind: str, tensor: ConfigDict, valid: Sequence[str]) -> None:
        where = f"in auto-complete-config function for model '{self._name}'"
        if "name" not in tensor:
            raise ValueError(f"{kind} {where} is missing 'name' property.")
        name = tensor["name"]
        if set(tensor) - set(valid):
            listed = ", ".join(f"'{each}'" for each in valid[:-1]) + f" and '{valid[-1]}'"
            raise ValueError(f"{kind} '{name}' {where} contains property other than {listed}.")
        for required in _REQUIRED:
            if required not in tensor:
                raise ValueError(f"{kind} '{name}' {where} is missing '{required}' property.")

    def _add(self, kind: str, tensor: ConfigDict) -> None:
        given = _by_name(self._config[kind], tensor["name"])
        if given is None:
            self._config[kind].append(tensor)
            return
        self._check_datatype(kind, given, tensor)
        for key in ("dims", "optional"):
            # Absent, empty and false dims or flags are what the config file left open.
            if given.get(key) and key in tensor and given[key] != tensor[key]:
                raise ValueError(
                    f"model '{self._name}', tensor '{tensor['name']}': the model expects {key} "
                    f"{tensor[key]} but the model configuration specifies {key} {given[key]}"
                )
        given.update(tensor)

    def _check_datatype(self, kind: str, given: ConfigDict, tensor: ConfigDict) -> None:
        expected = given.get("data_type", "TYPE_INVALID")
        if expected not in ("TYPE_INVALID", tensor["data_type"]):
            raise ValueError(
                f"unable to load model '{self._name}', configuration expects datatype {expected} "
                f"for {kind} '{tensor['name']}', model provides {tensor['data_type']}"
            )


def _by_name(tensors: Sequence[ConfigDict], name: str) -> ConfigDict | None:
    for tensor in tensors:
        if tensor["name"] == name:
            return tensor
    return None
