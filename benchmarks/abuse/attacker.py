"""The process of an attacker: ``python -m benchmarks.abuse.attacker NAME``, with port, key and customer as JSON on standard input.

It prints ``ready`` when the attack has run for a second. For each further line of input it prints the answers so far.
It ends with its input.
"""

import asyncio
import json
import os
import sys
import threading

from benchmarks.abuse.attacks import ATTACKS, Target

READY_SECONDS = 1.0
NICE = 19  # a real attacker takes no CPU from the service


def _report(target: Target) -> None:
    for _ in sys.stdin:
        print(json.dumps(target.answers), flush=True)
    os._exit(0)


async def _attack(name: str, target: Target) -> None:
    async with asyncio.TaskGroup() as group:
        for task in ATTACKS[name].tasks(target):
            group.create_task(task)
        await asyncio.sleep(READY_SECONDS)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    os.nice(NICE)
    target = Target(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_report, args=(target,), daemon=True).start()
    asyncio.run(_attack(sys.argv[1], target))
