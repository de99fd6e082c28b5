"""Speed and learning, measured beside peers in the same run: `python -m benchmarks.train`, ...

| bench | question |
|---|---|
| train | how fast is a training step, and how much memory does it take? |
| sample | how fast is text generated? |
| learn | how far does a recipe come in some minutes of training? |
| tokenize | how fast does a corpus become token shards? |
| matmul | how fast could a training step be if it were matrix products alone? |

Each prints a table on stderr and, with `--json`, one JSON object on stdout.
"""

import os

# As `tinygpt` sets it, and for the same reason: see tinygpt.cli.main. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
