#!/usr/bin/env python3
"""Asks a service whether it is well; a container's health check. Standard library alone, for it starts often.

usage: health.py URL [COMPONENT]      COMPONENT: a name in Airflow's report on health, such as `triggerer`
"""

import json
import os
import sys
import urllib.request

request = urllib.request.Request(sys.argv[1])
if token := os.environ.get("RAY_AUTH_TOKEN"):
    request.add_header("Authorization", f"Bearer {token}")
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # neighbours are asked without a proxy
try:
    with direct.open(request, timeout=8) as answer:
        body = answer.read()
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
if len(sys.argv) > 2:
    state = (json.loads(body).get(sys.argv[2]) or {}).get("status")
    sys.exit(None if state == "healthy" else f"{sys.argv[2]} is {state}")
