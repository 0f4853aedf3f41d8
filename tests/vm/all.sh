#!/usr/bin/env bash
# In the machine: everything there is, the integration tests last. Arguments are for those.
set -euo pipefail

here=$(dirname "$0")
for part in by_hand systemd; do
    echo "=== $part"
    "$here/$part.sh"
done
echo "=== integration tests"
it=$(echo "$here"/../../target/*/debug/deps/it)
exec "$it" "$@"
