"""Opens models of decision trees, with the names and parameters of Triton's FIL backend.

XGBoost, LightGBM and CatBoost each compute their own file: what the library predicts is what is
answered.
"""

import json
from pathlib import Path

from trivet.backends.api import (
    DataType,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Placement,
    parameter,
)
from trivet.backends.api.completion import ModelTensor, complete_config
from trivet.backends.fil.files import find_file, open_forest
from trivet.backends.fil.forest import Facts
from trivet.backends.fil.instance import INPUT, SHAPLEY, FilInstance
from trivet.backends.fil.output import OUTPUT, Output
from trivet.protos.model_config_pb2 import ModelConfig

CLASSES = "classes"


class FilBackend:
    """`backend: "fil"`."""

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Raises InvalidConfig for a config, LoadFailed for a file that is wrong."""
        facts = open_forest(config, find_file(config, files)).facts
        return _complete(config, facts)

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> FilInstance:
        """Raises LoadFailed, InvalidConfig."""
        if placement.kind == "KIND_GPU":
            raise LoadFailed(
                f"model '{config.name}': trees are computed on the CPU; use KIND_CPU or KIND_AUTO "
                "in instance_group"
            )
        path: Path = find_file(config, files)
        forest = open_forest(config, path)
        # Without auto-completion nobody has compared the config with the file yet.
        completed = _complete(config, forest.facts)
        num_threads = _num_threads(config) or max(1, placement.cpu_threads)
        wants_contributions = any(each.name == SHAPLEY for each in completed.output)
        output = Output.of(config, forest.facts)
        return FilInstance(forest, output, num_threads, explains=wants_contributions)


def _complete(config: ModelConfig, facts: Facts) -> ModelConfig:
    output = Output.of(config, facts)
    inputs = [ModelTensor(INPUT, DataType.FP32, (-1, facts.num_features))]
    outputs = [ModelTensor(OUTPUT, DataType.FP32, (-1, output.num_columns))]
    if any(each.name == SHAPLEY for each in config.output):
        per_score = (facts.num_scores,) if facts.num_scores > 1 else ()
        shape = (-1, *per_score, facts.num_features + 1)
        outputs.append(ModelTensor(SHAPLEY, DataType.FP32, shape))
    completed = complete_config(config, inputs, outputs)
    if facts.classes and CLASSES not in completed.parameters:
        names = json.dumps(facts.classes, ensure_ascii=False)
        completed.parameters[CLASSES].string_value = names
    return completed


def _num_threads(config: ModelConfig) -> int:
    text = parameter(config, "cpu_nthread", "0")
    if not text.lstrip("-").isdigit():
        raise InvalidConfig(
            f"model '{config.name}': parameter cpu_nthread is '{text}', but must be a number"
        )
    return max(0, int(text))


BACKEND = FilBackend()
