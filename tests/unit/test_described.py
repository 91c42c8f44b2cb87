"""Many threads that read into the same types at once, as the first thing that a process does. (Without `described` most
such processes end by SIGSEGV.)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STORED = Path(__file__).parent / "stored" / "single_container.json"
READ = """
import json, sys, threading
from eyrie.control.endpoints import decode
body = json.load(open(sys.argv[1]))["endpoint"]
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(24)
def read():
    barrier.wait()
    for _ in range(20):
        decode(body)
threads = [threading.Thread(target=read) for _ in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("read")
"""


def test_threads_may_read_into_a_type_at_once_from_the_beginning() -> None:
    processes = [
        subprocess.Popen([sys.executable, "-P", "-c", READ, str(STORED)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [(each.communicate(timeout=120)[0], each.returncode) for each in processes]
    assert ended == [("read\n", 0)] * 2
