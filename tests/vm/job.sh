#!/usr/bin/env bash
# In the machine, at its start: brings the tests' disk to its place and runs the command that lies there.
set -uo pipefail

# udev makes it in its own time.
until [[ -e /dev/virtio-ports/carboy.output ]]; do
    sleep 1
done
exec >/dev/virtio-ports/carboy.output 2>&1
mount LABEL=carboy-tree /mnt
repository=$(</mnt/.vm/path)
cargo=$(</mnt/.vm/cargo)
command=$(</mnt/.vm/command)
umount /mnt
mkdir -p "$repository" "$(dirname "$cargo")"
mount LABEL=carboy-tree "$repository"
printf '#!/bin/sh\nexit 0\n' >"$cargo"
chmod 755 "$cargo"
cd "$repository"
export HOME=/root LC_ALL=C.UTF-8
uname -r
bash -c "$command"
echo "=== exit code $?"
