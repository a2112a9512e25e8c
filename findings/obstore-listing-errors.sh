#!/usr/bin/env bash
# obstore 0.12.1: what a refusal is called depends on whether one object or a listing was asked for.
#
# Situation: a server follows a bucket and has to tell "may not" from "not there" from "try later", since
# an operator must act on the first two, and nobody on the third.
# Guess: the exceptions that the documentation lists (PermissionDeniedError, UnauthenticatedError, the
# built-in FileNotFoundError) say so for every call.
# Seen: get() of one object raises them for 403, 401 and 404. list() of the same bucket raises
# GenericError for all three, the same as for a service that is overloaded (503): S3, Google and Azure
# alike. A bucket that does not exist is therefore no FileNotFoundError, and a caller that retries
# GenericErrors retries refusals, too. Only the text has the status.
# So: whoever lists must read "status code: NNN" from the text, or ask for one object to find out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q obstore==0.12.1
cat > "$folder/errors.py" <<'END'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
from obstore.store import AzureStore, GCSStore, S3Store


class Refusing(BaseHTTPRequestHandler):
    status = 403

    def do_GET(self):
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
more = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
stores = {
    "S3": S3Store("bucket", endpoint=url, region="us-east-1", skip_signature=True, **more),
    "Google": GCSStore("bucket", base_url=url, skip_signature=True, **more),
    "Azure": AzureStore(
        "container", account_name="account", endpoint=url, skip_signature=True, **more
    ),
}


def raised(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__


seen = {}
for Refusing.status in (401, 403, 404, 503):
    for name, store in stores.items():
        of_one = raised(lambda: obstore.get(store, "object"))
        of_all = raised(lambda: list(obstore.list(store)))
        print(f"{Refusing.status} {name:6} get: {of_one:24} list: {of_all}")
        seen[Refusing.status, name] = (of_one, of_all)
expected = {401: "UnauthenticatedError", 403: "PermissionDeniedError", 404: "FileNotFoundError"}
for (status, name), pair in seen.items():
    assert pair == (expected.get(status, "GenericError"), "GenericError"), (status, name, pair)
END
"$folder/venv/bin/python" "$folder/errors.py"
echo "as seen"
