#!/usr/bin/env bash
# huggingface_hub 2.4.0: making the headers of a request makes a request.
#
# Situation: a program behind a mirror (HF_ENDPOINT) builds the headers of its own request with the public
# build_hf_headers().
# Guess: that joins a user agent and a token; the mirror sees nothing yet.
# Seen: the first call in a process asks the mirror for /api/agent-harnesses, without the token and for up
# to 3 s, and writes what it answers to HF_HOME/.agent_harnesses.json: for the user agent, which is to say
# what has started the process. HF_HUB_DISABLE_TELEMETRY=1 switches it off.
# So: a mirror that counts, allows or routes paths sees one that no model has; on a network that drops
# packets the first listing takes 3 s more; a home that may not be written to is written to.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q huggingface_hub==2.4.0
cat > "$folder/headers.py" <<'END'
import http.server
import os
import subprocess
import sys
import threading

asked = []


class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append((self.path, "authorization" in self.headers))
        body = b'{"standardEnvVars": [], "harnesses": {}}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def headers_in(home, **more):
    """What the mirror sees while another process makes headers."""
    asked.clear()
    code = "from huggingface_hub.utils import build_hf_headers; build_hf_headers()"
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": home, "HF_TOKEN": "hf_" + "a" * 34, **more}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, check=True)
    print(more, "the mirror was asked for", asked, "and HF_HOME holds", os.listdir(home))
    return list(asked), os.listdir(home)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_address[1]}"
first, second = sys.argv[1:]
expected = [("/api/agent-harnesses", False)], [".agent_harnesses.json"]
assert headers_in(first) == expected, "headers are made otherwise now"
assert headers_in(second, HF_HUB_DISABLE_TELEMETRY="1") == ([], []), "the switch is another one now"
END
mkdir "$folder/first" "$folder/second"
"$folder/venv/bin/python" "$folder/headers.py" "$folder/first" "$folder/second"
echo "as described"
