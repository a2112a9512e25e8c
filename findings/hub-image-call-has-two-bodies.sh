#!/usr/bin/env bash
# huggingface_hub 2.4.0: what InferenceClient.image_classification posts to a server of one's own.
#
# Situation: a client whose model is a URL classifies the same image as bytes, as a path, and with
# top_k=3, which is also what the answer has without it.
# Guess: three requests that differ in a parameter at most.
# Seen: three kinds of request. Bytes are posted as they are, with no Content-Type at all; a path with the
# type that its name suggests; and with top_k (or function_to_apply) the body is a JSON document that has
# the file in base64. The URL is the same each time.
# So: a server that tells bodies by their Content-Type refuses the first, and one that was tried with
# files only answers 400 from the day somebody asks for fewer labels. Look at the first byte where no
# type is given, and take base64 too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q huggingface_hub==2.4.0
cat > "$folder/bodies.py" <<'END'
import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from huggingface_hub import InferenceClient

FILE = b"\x89PNG\r\n\x1a\n and so on"
seen = []


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        seen.append((self.path, self.headers.get("Content-Type"), body))
        answer = json.dumps([{"label": "x", "score": 0.5}] * 3).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = InferenceClient(model=f"http://127.0.0.1:{server.server_port}", token="none")
path = Path(sys.argv[1]) / "photo.png"
path.write_bytes(FILE)
client.image_classification(FILE)
client.image_classification(path)
client.image_classification(FILE, top_k=3)
server.shutdown()

for place, kind, body in seen:
    print(place, "Content-Type:", kind, body[:40])
places, kinds, bodies = zip(*seen)
assert len(set(places)) == 1, "the parameters have a path of their own now"
assert kinds[0] is None, "bytes have a type now"
assert kinds[1:] == ("image/png", "application/json"), "the types are others now"
assert bodies[:2] == (FILE, FILE), "files are sent otherwise now"
document = json.loads(bodies[2])
assert base64.b64decode(document["inputs"]) == FILE, "the document has the file otherwise now"
assert document["parameters"] == {"top_k": 3}, "parameters are sent otherwise now"
END
"$folder/venv/bin/python" "$folder/bodies.py" "$folder"
echo "as described"
