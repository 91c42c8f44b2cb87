#!/bin/sh
# Without any engine: a virtual environment with the container's programs in its bin/. make_venv.sh DIR [PYTHON]
set -e
here=$(cd "$(dirname "$0")" && pwd)
"${2:-python3}" -m venv "$1"
"$1/bin/pip" install -q -r "$here/container/requirements.txt"
cp "$here"/container/*.py "$here"/container/nginx.conf "$here"/container/serve "$here"/container/train "$1/bin/"
echo "now: eyrie image add mine:1 $1"
