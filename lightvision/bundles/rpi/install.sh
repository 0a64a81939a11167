#!/bin/sh
# A virtual environment of what requirements.txt names, beside this file; nothing else on the device changes.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || {
    echo "install.sh: Python 3.11 to 3.14 is needed, $("$PYTHON" --version) is here; name another by PYTHON=python3.12 ./install.sh" >&2
    exit 1
}
"$PYTHON" -c 'import sys; sys.exit(sys.maxsize < 2**32)' || {
    echo "install.sh: this Python is of 32 bits, for which there is no ONNX Runtime: install the 64-bit system" >&2
    exit 1
}
"$PYTHON" -m venv .venv || {
    echo "install.sh: Python lacks venv; on Debian and Raspberry Pi OS: sudo apt install python3-venv" >&2
    exit 1
}
.venv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes -r requirements.txt
.venv/bin/python run.py --check
