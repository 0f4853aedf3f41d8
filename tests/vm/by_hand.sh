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

after=$(find /sys/fs/cgroup -maxdepth 1 -type d | sort; ip -br link; nft list ruleset)
diff <(echo "$before") <(echo "$after")
ip link delete uplink
