"""A browser's pages call the server where `--http-cors-origins` lets them, and nowhere else."""

import functools
import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nginx_site import free_ports
from patience import patience
from programs import program
from serving import RunningServer, write_identity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PAGE = """
<title>asking</title>
<script>
  const inputs = [{ name: "INPUT0", shape: [1, 16], datatype: "FP32", data: Array(16).fill(2) }];
  const options = { method: "POST", body: JSON.stringify({ inputs }),
                    headers: { "Content-Type": "application/json" } };
  fetch("http://%s/v2/models/identity/infer", options)
    .then((answer) => answer.json())
    .then((made) => { document.title = "got " + made.outputs[0].data[0]; })
    .catch(() => { document.title = "refused"; });
</script>
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An origin, and the folder of its pages."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as pages:
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{pages.server_address[1]}", tmp_path
        pages.shutdown()
        thread.join()


def title_of(url: str, profile: Path) -> str:
    """The page's title once it has done what it does."""
    command = [
        program("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
        f"--user-data-dir={profile}", "--virtual-time-budget=20000", url,
    ]  # fmt: skip
    document = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=patience(120)
    )
    return document.stdout.partition("<title>")[2].partition("</title>")[0]


@pytest.mark.parametrize("is_allowed", [True, False])
def test_a_page_gets_an_answer_where_its_origin_is_allowed(
    serve: Callable[..., RunningServer],
    tmp_path_factory: pytest.TempPathFactory,
    site: tuple[str, Path],
    *,
    is_allowed: bool,
) -> None:
    origin, pages = site
    repository = tmp_path_factory.mktemp("models")
    write_identity(repository, "identity")
    allowed = origin if is_allowed else f"http://127.0.0.1:{free_ports(1)[0]}"
    server = serve(repository, f"--http-cors-origins={allowed}")
    (pages / "page.html").write_text(PAGE % server.http)
    title = title_of(f"{origin}/page.html", tmp_path_factory.mktemp("profile"))
    assert title == ("got 2" if is_allowed else "refused")
