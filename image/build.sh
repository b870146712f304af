#!/bin/bash
# Makes the OCI archive of the operator, without a Docker daemon: image/build.sh BINARY NAME OUT.tar
set -euo pipefail
IMAGE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$IMAGE/../tests/tools/env.sh"
"$IMAGE/../tests/tools/build.sh" mkimage
certificates=/etc/ssl/certs/ca-certificates.crt
[ -e "$certificates" ] || { echo "image: $certificates is missing; install the package ca-certificates" >&2; exit 3; }
mkimage "$3" "$2" /seaworthy "$1=/seaworthy" "$certificates=$certificates"
