#!/usr/bin/env bash
# uv 0.13.9: UV_NO_BUILD and `uv pip install`.
#
# Situation: packages are to be installed without running their build scripts, by `uv pip install` that a
# program starts. An environment variable is set, as PIP_ONLY_BINARY=:all: would be for pip, and as
# UV_INDEX and UV_FIND_LINKS are for this very command. uv's list of variables says of
# UV_NO_BUILD that it is the same as the option --no-build.
# Guess: a package that exists as a source distribution alone is refused.
# Seen: with UV_NO_BUILD=1 its build backend runs, without a warning. With --no-build, or with
# `[pip] no-build = true` in the user's uv.toml, it does not. The variable is for other commands (sync).
# So: give the option or write uv.toml; the variable protects nothing here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q uv==0.13.9

mkdir -p frob-1.0 dist config/uv
cat > frob-1.0/pyproject.toml <<'END'
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "frob"
version = "1.0"
END
cat > frob-1.0/backend.py <<END
open("$folder/ran", "w").close()
raise SystemExit("the backend ran")
END
printf 'Metadata-Version: 2.2\nName: frob\nVersion: 1.0\n' > frob-1.0/PKG-INFO
tar czf dist/frob-1.0.tar.gz frob-1.0

install() { # prints whether the build backend has run
    rm -f ran
    env XDG_CONFIG_HOME="$folder/config" UV_CACHE_DIR="$folder/cache" \
        UV_FIND_LINKS="$folder/dist" "$@" venv/bin/uv pip install --no-index --python venv/bin/python frob \
        ${option:-} > log 2>&1 && echo "installed" || [ ! -e ran ] || echo "ran"
}

[ "$(install UV_NO_BUILD=0)" = ran ] || { echo "without a wish nothing is built now"; exit 1; }
[ "$(install UV_NO_BUILD=1)" = ran ] || { echo "UV_NO_BUILD is heeded now"; exit 1; }
[ "$(option=--no-build install UV_NO_BUILD=0)" = "" ] || { echo "--no-build is not heeded now"; exit 1; }
printf '[pip]\nno-build = true\n' > config/uv/uv.toml
[ "$(install UV_NO_BUILD=0)" = "" ] || { echo "uv.toml is not heeded now"; exit 1; }
echo "as described"
