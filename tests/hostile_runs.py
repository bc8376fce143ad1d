"""Give files to commands, in a process of its own that may crash: python hostile_runs.py FOLDER [BYTES].

With BYTES no file can be written that is larger, as on a full disk.

FOLDER/plan.json lists the runs: a name and the arguments of a command each. FOLDER/results.json gets of each its exit
status, what it wrote to stderr, whether something had run, and by how many MB the process has grown. FOLDER/last tells
which run was the last.
"""

import json
import resource
import signal
import sys
from pathlib import Path

from tool_runs import run_command

# A run that takes longer ends the process by a signal.
MAX_SECONDS = 120
DESTINATIONS = (
    *('out.pth', 'out.json', 'out.ts', 'out.onnx', 'out.xml', 'out.bin', 'out.pt2', 'out.safetensors'),
    *('out.param', 'out.ncnn.bin', 'out.pte'),
)
PRECIOUS = b'precious'


def measure_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(folder: Path, limit: int) -> None:
    results = {}
    for name, arguments in json.loads((folder / 'plan.json').read_text()):
        (folder / 'last').write_text(name)
        for destination in DESTINATIONS:
            (folder / destination).write_bytes(PRECIOUS)
        before = measure_peak()
        signal.alarm(MAX_SECONDS)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        done = run_command(*arguments, cwd=folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        signal.alarm(0)
        changed = [each for each in DESTINATIONS if (folder / each).read_bytes() != PRECIOUS]
        results[name] = dict(
            status=done.returncode,
            stderr=done.stderr,
            ran=(folder / 'RAN').exists(),
            changed=changed,
            hidden=[each.name for each in folder.iterdir() if each.name.startswith('.')],
            grown=measure_peak() - before,
        )
        (folder / 'RAN').unlink(missing_ok=True)
    (folder / 'results.json').write_text(json.dumps(results))


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else resource.RLIM_INFINITY)
