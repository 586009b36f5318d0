import platform
import subprocess
import sys

import pytest

# Asks for 48 MB and frees them, ten times; prints the page faults. A process of its own, since the setting stays.
FAULTS = """
import ctypes, resource, sys
from app.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
SIZE = 48 * 1024 * 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    memory = libc.malloc(SIZE)
    ctypes.memset(memory, 1, SIZE)
    libc.free(memory)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_memory_that_is_kept_is_not_faulted_in_again():
    kept, given_back = faults("keep"), faults("leave")
    assert given_back > 5 * kept
