#!/bin/sh
# Prepares what the services need, each time `docker compose up` runs: buckets, Airflow's database, pools. Repeatable.
set -eu
for address in "$QWEN_CORE_STORE" "$MLFLOW_ARTIFACTS"; do
  python - "$address" <<'PYTHON'
import sys

import pyarrow.fs

from qwen_core.errors import PlatformError
from qwen_core.filesystem import check_bytes_come_back, open_filesystem

filesystem, path = open_filesystem(sys.argv[1])
bucket = path.split("/")[0]
if filesystem.get_file_info(bucket).type == pyarrow.fs.FileType.NotFound:
    filesystem.create_dir(bucket)
    print(f"init: made bucket {bucket}")
try:
    check_bytes_come_back(sys.argv[1])
except PlatformError as fault:
    sys.exit(f"init: {fault}")
PYTHON
done
airflow db check --retry 30 --retry-delay 2  # an external server, or one that is late
airflow db migrate
python - <<'PYTHON'
"""Pools: those that are missing are made; the slots of one that exists are the user's."""
import json
import os
from importlib.resources import files

from airflow.models.pool import Pool
from airflow.utils.session import create_session

wanted = files("qwen_core.platform") / "pools.json"
pools = json.loads(wanted.read_text()) if wanted.is_file() else {"training": {"slots": 1, "description": "Training"}}
with create_session() as session:
    have = {pool.pool for pool in session.query(Pool)}
    for name, told in pools.items():
        slots = int(os.environ.get(f"POOL_{name.upper()}_SLOTS") or told["slots"])
        if name not in have:
            session.add(Pool(pool=name, slots=slots, description=told["description"], include_deferred=True))
            print(f"init: made pool {name} with {slots} slots")
PYTHON
echo "init: done"
