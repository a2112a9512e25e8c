#!/usr/bin/env bash
# mlflow-skinny 3.17.2: an alias that is not there is no missing resource, and models:/NAME is no model.
#
# Situation: a deployment follows models:/fraud@champion and treats RESOURCE_DOES_NOT_EXIST (404) as "not
# there yet, wait", and everything else as a fault of the caller.
# Guess: a model, a version and an alias that are not registered raise the same error code; and
# models:/fraud means the registered model fraud, in some version.
# Seen: the alias raises INVALID_PARAMETER_VALUE (400), the other two RESOURCE_DOES_NOT_EXIST (404). And
# models:/fraud is read as the logged model whose id is "fraud": the registry is never asked about the name.
# So: "not there yet" has two codes; an address without @ALIAS or /VERSION must be refused by whoever takes
# it, as the error otherwise speaks of a logged model that nobody has named.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mlflow-skinny==3.17.2
cat > "$folder/alias.py" <<'END'
import sys

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version

client = MlflowClient(tracking_uri=f"file://{sys.argv[1]}", registry_uri=f"file://{sys.argv[1]}")
client.create_registered_model("fraud")
client.create_model_version("fraud", f"file://{sys.argv[1]}")


def refusal(what, ask):
    """Code and HTTP status of what is not there."""
    try:
        ask()
    except MlflowException as error:
        print(what, "raises", error.error_code, error.get_http_status_code(), "-", error.message)
        return error.error_code, error.get_http_status_code()
    raise AssertionError(f"{what} is there now")


missing = "RESOURCE_DOES_NOT_EXIST", 404
assert refusal("another model", lambda: client.get_registered_model("other")) == missing
assert refusal("another version", lambda: client.get_model_version("fraud", "7")) == missing
by_alias = refusal("another alias", lambda: client.get_model_version_by_alias("fraud", "champion"))
assert by_alias == ("INVALID_PARAMETER_VALUE", 400), "aliases are told otherwise now"

meant = get_model_name_and_version(client, "models:/fraud")
print("models:/fraud means", meant, "and models:/fraud/latest", end=" ")
print(get_model_name_and_version(client, "models:/fraud/latest"))
assert meant == ("fraud",), "models:/NAME means something else now"
END
export MLFLOW_ALLOW_FILE_STORE=true MLFLOW_DISABLE_TELEMETRY=true
"$folder/venv/bin/python" -W ignore "$folder/alias.py" "$folder/store"
echo "as described"
