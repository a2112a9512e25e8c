"""An ensemble that ends in a language model whose traffic is split."""

from dataclasses import replace
from itertools import cycle

from scripted_model import ScriptedModel

from trivet.backends.api import AsksAnother, Generator
from trivet.ensembles.generating import GeneratingEnsemble


class Split:
    """The end of an ensemble: each time that it is asked for, another version's turn comes."""

    def __init__(self) -> None:
        self.models = [ScriptedModel(), ScriptedModel()]
        for number, model in enumerate(self.models):
            model.info = replace(model.info, max_model_len=100 + number)
        self._turns = cycle(self.models)

    def generator(self, _server: object, _key: object, _client: object) -> Generator:
        return next(self._turns)


def test_all_of_one_request_is_asked_of_one_version() -> None:
    ensemble = object.__new__(GeneratingEnsemble)
    ensemble._ending = Split()  # type: ignore[assignment]  # as far as it is asked
    ensemble.server = None  # type: ignore[assignment]
    assert isinstance(ensemble, AsksAnother)
    seen = []
    for _ in range(4):
        request = ensemble.for_one_request()
        seen.append({request.info.max_model_len for _ in range(3)})
        assert request.info.is_ensemble

    assert seen == [{100}, {101}, {100}, {101}]
