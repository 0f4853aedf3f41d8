exec 2>&1
cb image load img/bb.tar >/dev/null 2>&1
echo "### lag"; n=0; for i in $(seq 60); do timeout 9 carboy --prefix conf up demo --ip 1.2.3.4 2>/dev/null; pgrep -x carboy >/dev/null && n=$((n+1)); pgrep 'carboy-mon' > /dev/null && n=$((n+1)); done; echo "still a process right after: $n of 60"
n=0; for i in $(seq 30); do timeout 9 carboy --prefix conf start demo --network nn --ip 1.2.3.4 embedded:sidecars 2>/dev/null; pgrep 'carboy' > /dev/null && n=$((n+1)); done; echo "start: $n of 30"
n=0; cb up demo >/dev/null 2>&1; for i in $(seq 20); do cb up demo >/dev/null 2>&1; timeout 9 carboy --prefix conf down demo >/dev/null 2>&1; pgrep 'carboy' > /dev/null && n=$((n+1)); done; echo "down: $n of 20"
echo "### other root on down"; cb --root /run/r2 up x >/dev/null; cb ps; cb down x; find /run/r2/bundles /run/root/bundles; 
cb --root /run/r2 up x >/dev/null; cb up x; cb --json inspect x | jq .log_path; cb down x; find /run/r2/bundles /run/root/bundles
cb up x >/dev/null; rm -rf /run/carboy; cb --root /run/r2 down x;  find /run/r2/bundles /run/root/bundles
echo "### image of running bundle reloaded under the name with other content"; cb up y --image registry.example/bb:1 >/dev/null;  cb image load img/l --name registry.example/bb:1; cb up y --image registry.example/bb:1; cb image ls; cb down y; cb image ls
echo "### volume symlink, -v with file missing dest in ro root"; ln -s /run/r2 /run/lnk; cb up v --image foo --read-only -v /run/lnk:/newdir | head -1;  cb up v --read-only -v /run/lnk:/newdir >/dev/null; cb inspect v | jq -c .launch.volumes; cb down v
printf '\xff' > /dev/null; X=$(printf 'a\xff') cb up v -e X | head -1; cb down v
nft list ruleset; find /run/carboy
