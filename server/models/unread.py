"""The log's lines about what a model's config says in vain."""

import logging

from trivet.backends.api import About
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.repository.unread import (
    NOBODYS_PARAMETERS,
    unread_fields,
    unread_parameters,
)

log = logging.getLogger(__name__)


def warn_of_unread(config: ModelConfig, about: About, *, is_namespaced: bool) -> None:
    """One line for parameters and one for fields; none where all are read."""
    unread = unread_parameters(config, about)
    if unread:
        known_in_vain = set(unread) & set(NOBODYS_PARAMETERS)
        near = {each: text for each in unread if (text := about.near_parameter(each))}
        level = logging.WARNING if known_in_vain or near else logging.DEBUG
        text = "model '%s': backend '%s' reads no parameters %s%s"
        hints = "".join(f"; for '{each}', did you mean '{its}'?" for each, its in near.items())
        log.log(level, text, config.name, about.word, unread, hints)
    fields = unread_fields(config, about, is_namespaced=is_namespaced)
    if fields:
        log.warning("model '%s': these fields have no effect here: %s", config.name, fields)
