#!/usr/bin/env bash
# xgboost-cpu 3.2.0 and lightgbm 4.7.0 under CPython 3.11: whose types do ctypes.pythonapi's functions have?
#
# Situation: code that handles DLPack capsules calls PyCapsule_GetPointer by ctypes and has given it a
# capsule's address as c_void_p (a destructor gets nothing else). A model of the same process imports
# XGBoost or LightGBM.
# Guess: argtypes and restype set on ctypes.pythonapi.NAME are the business of the module that set them.
# Seen: ctypes keeps one function object of each name for the whole process, and both libraries set its
# types while they are imported (their Arrow interface takes the capsule itself, a py_object). From then on
# the address is taken for an object: "PyCapsule_GetPointer called with invalid PyCapsule object", in code
# that has nothing to do with them, and only in processes that have loaded such a model. The other way
# round, the one who sets types later breaks theirs.
# So: make a function object of one's own, ctypes.PYFUNCTYPE(result, *arguments)((NAME, ctypes.pythonapi)).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 scipy xgboost-cpu==3.2.0 lightgbm==4.7.0
cat > "$folder/shared.py" <<'END'
import ctypes
import importlib
import sys

import numpy as np

capsule = np.arange(3).__dlpack__()
shared = ctypes.pythonapi.PyCapsule_GetPointer
shared.argtypes, shared.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_void_p
own = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
before = shared(id(capsule), b"dltensor")
importlib.import_module(sys.argv[1])
try:
    shared(id(capsule), b"dltensor")
    after = "works"
except ValueError as error:
    after = str(error)
print(sys.argv[1], bool(before), after, own(id(capsule), b"dltensor") == before)
END
for library in xgboost lightgbm; do
  "$folder/venv/bin/python" "$folder/shared.py" "$library"
done > "$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'END'
xgboost True PyCapsule_GetPointer called with invalid PyCapsule object True
lightgbm True PyCapsule_GetPointer called with invalid PyCapsule object True
END
echo "as described"
