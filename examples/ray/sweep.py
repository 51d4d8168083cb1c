#!/usr/bin/env python3
"""Computes a study on a Ray cluster, one task per shard, and joins what the shards leave in DIR.

    python examples/ray/sweep.py STUDY.ron DIR --shards 7 [--address auto]

STUDY.ron, DIR and the program must be the same on all nodes. A shard whose worker died runs again, on any node, and
goes on where it was; so does one that failed, when the whole command is given again. The program is radialsim, or
$RADIALSIM.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ray


def compute(command: list[str]) -> str | None:
    """Runs one shard on a worker; says what is wrong, if anything is."""
    # A worker that is killed must take its program with it: the next try writes to the same journal.
    bound = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    done = subprocess.run(bound + command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        # From outside, for example for lack of memory: worth another try.
        raise ChildProcessError(f"ended by {signal.Signals(-done.returncode).name}")
    return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else None


def arguments() -> argparse.Namespace:
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, metavar="STUDY.ron")
    parser.add_argument("out", type=Path, metavar="DIR", help="on a file system that all nodes see")
    parser.add_argument("--shards", type=int, required=True, help="parts, each a task")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs of a task, which it uses all (1)")
    parser.add_argument("--retries", type=int, default=3, help="tries after the first, if a worker dies (3)")
    parser.add_argument("--address", help="of the cluster (that of $RAY_ADDRESS, or this machine alone)")
    parsed = parser.parse_args()
    if min(parsed.shards, parsed.cpus) < 1 or parsed.retries < 0:
        parser.error("expected at least one shard and one CPU, and no negative number of retries")
    return parsed


def main() -> int:
    args = arguments()
    # Workers have a working directory and an environment of their own.
    program = os.environ.get("RADIALSIM", "radialsim")
    if os.sep in program:
        program = os.path.abspath(program)
    study, out = str(args.study.resolve()), str(args.out.resolve())

    ray.init(address=args.address, log_to_driver=False)
    task = ray.remote(num_cpus=args.cpus, max_retries=args.retries, retry_exceptions=True)(compute)
    sweep = [program, "sweep", study, "--out", out, "--quiet", "--jobs", str(args.cpus)]
    pending = {task.remote([*sweep, "--shard", f"{shard}/{args.shards}"]): shard for shard in range(1, args.shards + 1)}
    failed = 0
    while pending:
        (ready,), _ = ray.wait(list(pending), num_returns=1)
        shard = pending.pop(ready)
        try:
            wrong = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            wrong = str(error.cause)
        except ray.exceptions.RayError as error:
            wrong = str(error)
        failed += wrong is not None
        left = f"{len(pending)} of {args.shards} left"
        print(f"shard {shard} {'is done' if wrong is None else f'failed: {wrong}'} ({left})", file=sys.stderr)
    ray.shutdown()
    if failed:
        print(f"error: {failed} of {args.shards} shards failed; the others are kept", file=sys.stderr)
        return 1
    return subprocess.run([program, "merge", study, out, "--out", out], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
