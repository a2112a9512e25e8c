"""What guesses an engine's tokens, as its settings say."""

from trivet.backends.api import LoadFailed
from trivet.backends.llm.loading import LoadedPart
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.speculation.draft_loading import ReadDraft, load_draft
from trivet.backends.llm.speculation.draft_model import DraftModel
from trivet.backends.llm.speculation.drafter import Drafter
from trivet.backends.llm.speculation.lookup import Lookup
from trivet.backends.llm.speculation.speculation import Speculation
from trivet.backends.llm.speculative_config import DRAFT_MODEL
from trivet.backends.llm.text.tokenizer import Tokenizer


def make_speculation(
    settings: EngineSettings,
    loaded: LoadedPart,
    tokenizer: Tokenizer,
    state: BatchState,
    draft: ReadDraft | None,
) -> Speculation | None:
    """None where nothing is to be guessed. `draft`: the smaller model, if there is one. Raises
    LoadFailed."""
    config = settings.speculative
    if config is None:
        return None
    if loaded.config.keeps_states:
        raise LoadFailed(
            f"speculative_config: architecture '{loaded.config.architecture}' keeps states that "
            "cannot go back behind a wrong guess; leave it out"
        )
    drafter: Drafter
    if draft is None:
        size = loaded.config.vocabulary_size
        drafter = Lookup(config.shortest, config.longest, size, config.num_kept_outputs)
    elif loaded.sight is not None:
        raise LoadFailed(
            f"speculative_config: method '{DRAFT_MODEL}' reads no images, which this model does; "
            "'ngram' and 'suffix' go with them"
        )
    else:
        runner = load_draft(draft, settings, loaded, tokenizer)
        most_tokens = settings.step_tokens(loaded.device.type)
        drafter = DraftModel(runner, state, most_tokens, draft.config.vocabulary_size)
    return Speculation(drafter, config.num_guesses)
