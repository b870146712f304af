#!/bin/bash
# moto, an emulator of AWS, on loopback until it is killed:
#
#   moto.sh PORT
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tools/env.sh"
"$(dirname "${BASH_SOURCE[0]}")/../tools/build.sh" moto
exec "$(tool_dir moto)/bin/python" -m moto.server -H 127.0.0.1 -p "$1"
