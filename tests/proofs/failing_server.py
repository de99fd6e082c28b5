"""A process in which calls of the C library fail, for tests/proofs/test_failing_calls.py.

LD_PRELOAD=failing_calls.so python -m tests.proofs.failing_server LIBRARY SCRATCH < CASES

Each line of CASES is a JSON list, [number, error, stays, kinds]; a line of stdout answers it. Each
case makes all stages of a store in a fork.
"""

import ctypes
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.store.workload import faults, problems, run_all
from tinygpt.errors import TinygptError
from tinygpt.store import Store

CREATE, WRITE, FSYNC, RENAME, MKDIR, UNLINK, CHMOD = (1 << bit for bit in range(7))
READ, OPEN, CLOSE, FLOCK, FTRUNCATE = (1 << bit for bit in range(7, 12))
CHANGES = CREATE | WRITE | FSYNC | RENAME | MKDIR | UNLINK | CHMOD
STORAGE_ERROR = 8
CORRUPT = 3


def work(library: ctypes.CDLL, root: Path, case: list[int]) -> tuple[int, int]:
    """Make all stages in a fork; its exit code, and how many calls were counted."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child:
        os.close(write_end)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with os.fdopen(read_end) as answer:
            return code, int(answer.read() or 0)
    code = 1
    try:
        number, error, stays, kinds = case
        library.arm(os.fsencode(root), number, error, stays, kinds)
        run_all(root)
        code = 0
    except TinygptError as error:
        code = error.exit_code
    except OSError:  # e.g., of close(); cli/failures.py has the same exit code for it
        code = STORAGE_ERROR
    finally:
        counted = library.count(case[3])
        library.arm(b"", 0, 0, 0, 0)
        os.write(write_end, str(counted).encode())
        os._exit(code)


def main() -> None:
    library = ctypes.CDLL(sys.argv[1])
    library.arm.argtypes = [
        ctypes.c_char_p,
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_uint,
    ]
    library.count.restype = ctypes.c_long
    scratch = Path(sys.argv[2])
    reference = run_all(scratch / "reference")
    for line in sys.stdin:
        root = scratch / "store"
        code, counted = work(library, root, json.loads(line))
        answer: dict[str, Any] = {"code": code, "calls": counted, "faults": faults(Store(root))}
        answer["left"] = [path.name for path in (root / ".partial").glob("*") if "." in path.name]
        answer["problems"] = problems(root, [], reference)
        print(json.dumps(answer), flush=True)
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
