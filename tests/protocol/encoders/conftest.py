"""A server over small encoders as their folders lie: one of each task, and one of images."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from encoder_folders import add_modules, make_encoder, set_tokenizer, write_json
from image_folders import make_classifier
from llm_site import Call, caller
from serving import RunningServer, start_server

LABELS = ("good", "bad", "neither")
TAGS = ("O", "B-PER", "I-PER", "B-LOC")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("encoders")
    vectors = make_encoder(made / "vectors/1")
    add_modules(vectors, "Pooling", "Normalize")
    prompts = {"prompts": {"query": "query : ", "passage": "passage : "}}
    write_json(vectors / "config_sentence_transformers.json", prompts)
    make_encoder(made / "labels/1", "roberta", "ForSequenceClassification", LABELS)
    pairs = make_encoder(made / "pairs/1", "bert", "ForSequenceClassification", ("LABEL_0",))
    set_tokenizer(pairs, "BertTokenizer")
    make_encoder(made / "tags/1", "distilbert", "ForTokenClassification", TAGS)
    make_classifier(made / "pictures/1")
    return made


@pytest.fixture(scope="session")
def encoders(repository: Path) -> Iterator[RunningServer]:
    server = start_server(repository)
    yield server
    assert server.stop() == 0
    server.end()


@pytest.fixture
def call(encoders: RunningServer) -> Call:
    return caller(encoders)
