"""A Ray job whose driver, its child and its worker sleep: what must be gone when the job is stopped."""

import subprocess
import time

import ray


@ray.remote(num_cpus=0)
def sleep():
    time.sleep(3600)


ray.init()
child = subprocess.Popen(["sleep", "3600"])
waiting = sleep.remote()
print("asleep", flush=True)
ray.get(waiting)
