#!/usr/bin/env bash
# cloudcoil.models.knative-serving 1.17.0.1 over pydantic 2.14.4: are these models a strict check of a
# manifest, as Kubernetes' own schemas are?
#
# Situation: a pod of a Knative service whose resources are written as everybody writes them, cpu: "1".
# Guess: a quantity is "a whole number, or text of a pattern", so "1", "500m" and 1 are all taken.
# Seen: text that is a whole number is turned into the number first, and then the pattern, which is one of
# text, is laid on it: neither "1" nor 1 can be validated, and what is raised is no ValidationError but a
# TypeError. "1000m", the same quantity, is taken, and so is "1Gi".
# So: check a copy in which whole quantities are written in thousandths.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q cloudcoil==0.6.0 cloudcoil.models.knative-serving==1.17.0.1 pydantic==2.14.4
cat > "$folder/quantities.py" <<'END'
from cloudcoil.models.knative_serving.serving.v1 import Service


def service(cpu):
    container = {"image": "example", "resources": {"requests": {"cpu": cpu}}}
    return {
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "example"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


for cpu in ("500m", "1000m", "1Gi", "1", 1):
    try:
        Service.model_validate(service(cpu))
        print(repr(cpu), "is taken")
    except Exception as error:
        print(repr(cpu), type(error).__name__)
END
"$folder/venv/bin/python" "$folder/quantities.py" > "$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'END'
'500m' is taken
'1000m' is taken
'1Gi' is taken
'1' TypeError
1 TypeError
END
echo "as described"
