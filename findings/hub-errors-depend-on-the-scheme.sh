#!/usr/bin/env bash
# huggingface_hub 2.4.0: which exception a missing or private model raises depends on https.
#
# Situation: a mirror or a self-hosted hub is reached by HF_ENDPOINT=http://...; it answers 401 for what is
# not there, as huggingface.co does, and code catches RepositoryNotFoundError.
# Guess: the same answer is the same error, whatever the scheme of the endpoint.
# Seen: a 401 without X-Error-Code is RepositoryNotFoundError only if the address begins with https://; over
# http:// it is a plain HfHubHTTPError, which the except clause does not catch. With the header
# X-Error-Code: RepoNotFound both are RepositoryNotFoundError.
# So: what is tried against a mirror on http:// takes another way through the error handling than
# production; status and X-Error-Code say the same in both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q huggingface_hub==2.4.0
cat > "$folder/errors.py" <<'END'
import httpx2
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status


def error_of(url, **headers):
    """The class that the answer 401 to this request raises."""
    answer = httpx2.Response(401, headers=headers, request=httpx2.Request("GET", url))
    try:
        hf_raise_for_status(answer)
    except HfHubHTTPError as error:
        print(url, headers, "raises", type(error).__name__)
        return type(error).__name__
    raise AssertionError("401 is no error now")


path = "mirror.example/api/models/org/name"
assert error_of(f"https://{path}") == "RepositoryNotFoundError", "https is told otherwise now"
assert error_of(f"http://{path}") == "HfHubHTTPError", "http is told otherwise now"
named = {"X-Error-Code": "RepoNotFound"}
assert error_of(f"http://{path}", **named) == "RepositoryNotFoundError", "the header counts less now"
END
"$folder/venv/bin/python" "$folder/errors.py"
echo "as described"
