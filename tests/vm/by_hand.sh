#!/usr/bin/env bash
# In the machine: what README.md shows, on the machine itself rather than in a host of the tests'.
set -euxo pipefail

carboy=$(echo "$(dirname "$0")"/../../target/*/debug/carboy)
carboy=$(realpath "$carboy")

# Something to go out by: the machine has no network.
ip link add uplink type veth peer name outside
ip addr add 10.9.0.2/24 dev uplink
ip link set outside up
ip link set uplink up
ip route replace default via 10.9.0.1 dev uplink
before=$(find /sys/fs/cgroup -maxdepth 1 -type d | sort; ip -br link; nft list ruleset)

"$carboy" up demo --memory 64m --cpus 0.5 --pids-limit 32
curl --fail --silent --show-error --max-time 20 http://192.168.108.2:9000/
[[ $("$carboy" exec demo -- /sidecars --version 2>&1) ]]
"$carboy" logs -n 5 demo
"$carboy" stats --no-stream
group=/sys/fs/cgroup/carboy.claude-bottle-sidecars-demo/container
[[ $(<"$group/memory.max") == $((64 << 20)) ]]
[[ $(<"$group/memory.swap.max") == 0 ]]
[[ $(<"$group/cpu.max") == "50000 100000" ]]
[[ $(<"$group/pids.max") == 32 ]]
"$carboy" pause demo
[[ $(<"$group/cgroup.freeze") == 1 ]]
"$carboy" unpause demo
"$carboy" verify demo
[[ $("$carboy" --json up demo --memory 64m --cpus 0.5 --pids-limit 32) == *'"changed":false'* ]]
"$carboy" restart demo
"$carboy" down demo
"$carboy" up demo --read-only --log-drops
"$carboy" verify demo
"$carboy" denied -n 5 demo
"$carboy" down demo

# Before Linux 6.5 all layers must be named in one page.
python3 - <<'PYTHON' >/root/many.tar
import hashlib, io, json, sys, tarfile

def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()

busybox = open("/bin/busybox", "rb").read()
layers = [archive({f"layers/{n}": b""} | ({"bin/busybox": busybox} if n == 0 else {})) for n in range(100)]
digests = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/busybox", "sleep", "1000000"]},
          "rootfs": {"type": "layers", "diff_ids": digests}}
names = [f"{n}.tar" for n in range(100)]
manifest = [{"Config": "config.json", "RepoTags": ["many:1"], "Layers": names}]
files = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()}
sys.stdout.buffer.write(archive(files | dict(zip(names, layers))))
PYTHON
for ids in host auto; do
    "$carboy" up demo --image /root/many.tar --userns="$ids"
    [[ $("$carboy" exec demo -- /bin/busybox ls /layers | wc -l) == 100 ]]
    "$carboy" down demo
done

after=$(find /sys/fs/cgroup -maxdepth 1 -type d | sort; ip -br link; nft list ruleset)
diff <(echo "$before") <(echo "$after")
ip link delete uplink
