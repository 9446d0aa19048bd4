#!/usr/bin/env bash
# fsspec's recursive `mv` of a folder on S3 copies every file and then fails, because the list that
# it copies also holds the folder, for which there is no key. Nothing is deleted at the source.
#
# Version: fsspec and s3fs 2026.9.0, moto 5 as the server. Seen: FileNotFoundError after z/b/1 was
# written, z/a/1 still there; on a local disk the same call works. Exits non-zero when that changes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
  'fsspec==2026.9.0' 's3fs==2026.9.0' 'moto[server]==5.2.5' 'boto3==1.43.117'
cat > "$work/try.py" <<'PY'
import os
import sys

from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
host, port = server.get_host_and_port()
os.environ.update(
    AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
    AWS_ACCESS_KEY_ID="x",
    AWS_SECRET_ACCESS_KEY="x",
    AWS_DEFAULT_REGION="us-east-1",
)
import boto3
import fsspec

boto3.client("s3").create_bucket(Bucket="bucket")
s3 = fsspec.filesystem("s3")
s3.pipe_file("bucket/z/a/1", b"1")
try:
    s3.mv("bucket/z/a", "bucket/z/b", recursive=True)
    seen = "moved"
except FileNotFoundError as error:
    seen = f"FileNotFoundError: {error}"
s3.invalidate_cache()
there = sorted(s3.find("bucket/z"))
print("s3:", seen)
print("afterwards:", there)
server.stop()
sys.exit(not (seen.startswith("FileNotFoundError") and there == ["bucket/z/a/1", "bucket/z/b/1"]))
PY
"$work/venv/bin/python" "$work/try.py" 2>"$work/log" || { code=$?; tail -5 "$work/log"; exit "$code"; }
