"""`--model-config-name`: the same repository, configured for another kind of machine."""

import json
from collections.abc import Callable
from pathlib import Path

from serving import RunningServer, write_identity


def test_models_that_have_the_named_config_use_it(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    folders = [write_identity(tmp_path, name) for name in ("one", "other")]
    (folders[0] / "configs").mkdir()
    text = (folders[0] / "config.pbtxt").read_text()
    named = text.replace("max_batch_size: 8", "max_batch_size: 64")
    (folders[0] / "configs/large.pbtxt").write_text(named)
    server = serve(tmp_path, "--model-config-name=large")

    def max_batch_size(name: str) -> int:
        size: int = json.loads(server.get(f"/v2/models/{name}/config")[1])["max_batch_size"]
        return size

    assert (max_batch_size("one"), max_batch_size("other")) == (64, 8)
    (folders[0] / "configs/large.pbtxt").write_text(named.replace("64", "32"))
    server.wait_until(lambda: max_batch_size("one") == 32, "reloaded")
