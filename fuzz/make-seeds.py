#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets to fuzz/seeds. Python's standard library is enough."""

import gzip, hashlib, io, json, pathlib, platform, tarfile

SEEDS = pathlib.Path(__file__).parent / "seeds"


def write(target, name, data):
    (SEEDS / target).mkdir(parents=True, exist_ok=True)
    (SEEDS / target / name).write_bytes(data)


def entry(name, kind=tarfile.REGTYPE, data=b"", link="", pax=None, **rest):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mtime = kind, link, len(data), 100
    info.pax_headers = pax or {}
    for key, value in rest.items():
        setattr(info, key, value)
    return info, data


def tar(*entries, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, bufsize=512) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    # Python pads to 10 KiB; what the fuzzer begins with is short.
    return aligned(out.getvalue().rstrip(b"\0")) + bytes(1024)


def aligned(data):
    return data + bytes(-len(data) % 512)


def layers():
    directory, symlink, link = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    yield "plain", tar(entry("a/", directory), entry("a/b", data=b"data"), entry("c", link, link="a/b"))
    yield "links", tar(entry("l", symlink, link="/etc"), entry("l/x", data=b"x"), entry("h", link, link="l/x"))
    yield "whiteouts", tar(entry("a/.wh.b"), entry(".wh..wh..opq"), entry("a/b/", directory), entry(".wh.a"))
    yield "dotdot", tar(entry("../x", data=b"x"))
    yield "long", tar(entry("d" * 120 + "/" + "f" * 200, data=b"x"))
    yield "gnu-long", tar(entry("d" * 200, symlink, link="t" * 200), form=tarfile.GNU_FORMAT)
    yield "fifo", tar(entry("f", tarfile.FIFOTYPE), entry("c", tarfile.CHRTYPE, devmajor=1, devminor=3))
    records = {"mtime": "-1.5", "SCHILY.xattr.user.a": "b", "uid": "70000", "comment": "c"}
    yield "pax", tar(entry("p", data=b"x", pax=records))
    yield "sparse-0.1", tar(entry("s", data=b"xyz", pax={"GNU.sparse.map": "5,1,9,2", "GNU.sparse.size": "20"}))
    one = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "20", "GNU.sparse.name": "n"}
    yield "sparse-1.0", tar(entry("s", data=aligned(b"1\n5\n3\n") + b"xyz", pax=one))
    yield "sparse-no-line-end", tar(entry("s", data=b"1" * 3000, pax=one))
    block = bytearray(tar(entry("s", data=b"xyz"), form=tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    block[386:410] = b"00000000005\00000000000003"[:24].ljust(24, b"\0")
    block[483:495] = b"00000000024\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    yield "sparse-gnu", bytes(block)
    block[482:483] = b"\1"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    more = bytes(504) + b"\1" + bytes(7)
    yield "sparse-gnu-no-end", bytes(block[:512]) + more * 20
    yield "replaced", tar(entry("x", data=b"1"), entry("x/", directory), entry("x/y"), entry("x", symlink, link="y"))
    yield "gzip", gzip.compress(tar(entry("a", data=b"x" * 2000)), mtime=0)


def descriptor(data, **rest):
    return {"digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data), **rest}


def images():
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    layer = tar(entry("a", data=b"x"))
    config = json.dumps({
        "architecture": machine, "os": "linux",
        "config": {"Env": ["A=b"], "Cmd": ["/x"], "User": "1:2", "WorkingDir": "/w", "Labels": {"k": "v"}},
        "rootfs": {"type": "layers", "diff_ids": [descriptor(layer)["digest"]]},
    }).encode()
    manifest = json.dumps({"schemaVersion": 2, "config": descriptor(config), "layers": [descriptor(layer)]}).encode()
    target = descriptor(manifest, platform={"os": "linux", "architecture": machine},
                        annotations={"org.opencontainers.image.ref.name": "t:1"})
    index = json.dumps({"schemaVersion": 2, "manifests": [target]}).encode()
    both = json.dumps({"config": descriptor(config), "layers": [], "manifests": []}).encode()
    docker = json.dumps([{"Config": "c.json", "RepoTags": ["t:1"], "Layers": ["l/layer.tar", "l2"]}]).encode()
    documents = {"config": config, "manifest": manifest, "index": index, "both": both}
    blobs = [(f"blobs/sha256/{descriptor(d)['digest'][7:]}", d) for d in (layer, config, manifest)]
    oci = tar(*(entry(n, data=d) for n, d in [("index.json", index), *blobs]), form=tarfile.USTAR_FORMAT)
    saved = tar(entry("manifest.json", data=docker), entry("c.json", data=config),
                entry("l/layer.tar", data=layer), entry("l2", tarfile.SYMTYPE, link="l/layer.tar"))
    return documents, {"oci": oci, "docker": saved, "oci.gz": gzip.compress(oci, mtime=0)}


REFERENCES = ["busybox", "t:1", "docker.io/library/t:latest", "localhost:5000/a/b__c-d.e:T_1",
              "[::1]:5000/x", "a@sha256:" + "0" * 64, "sha256:" + "f" * 64, "A.b/c", "a//b", ":x", "@"]

for name, data in layers():
    write("layer", name, data)
documents, archives = images()
for name, data in documents.items():
    write("document", name, data)
for name, data in archives.items():
    write("archive", name, data)
for number, text in enumerate(REFERENCES):
    write("reference", str(number), text.encode())
