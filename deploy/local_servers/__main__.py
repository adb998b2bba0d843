"""``python -m deploy.local_servers up | down``: what ``make up-local`` and ``make down-local`` run."""

import os
import sys
from pathlib import Path

from deploy.local_servers.programs import ServerError
from deploy.local_servers.servers import Ports, Servers

FOLDER = Path(".servers")
COMMANDS = ("up", "down")
INTERRUPTED = 130


def main(command: str) -> None:
    """Start the servers and print how to use them, or stop them."""
    try:
        servers = Servers(FOLDER, Ports(_port("POSTGRES_PORT"), _port("S3_PORT"), _port("TRACKING_PORT")))
        if command == "down":
            servers.stop()
            print(f"Stopped. The data are in {FOLDER}/; `make up-local` starts the servers with them again.")
        else:
            print("Starting PostgreSQL, S3 and MLflow …", file=sys.stderr)
            servers.start()
            _print_use(servers)
    except ServerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("Stopped. Servers that have started run on; `make down-local` stops them.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _port(variable: str) -> int:
    value = os.environ.get(variable, "")
    if not value.isdecimal() or not 0 < int(value) < 2**16:
        raise ServerError(f"{variable} is '{value}': give a port from 1 to 65535, such as {variable}=5433")
    return int(value)


def _print_use(servers: Servers) -> None:
    file = FOLDER / servers.write_environment().name
    print("PostgreSQL, S3 and MLflow run on loopback. These settings point the project at them:\n")
    for name, value in servers.locations().items():
        print(f"  export {name}={value}")
    print(f"\n{file} has the same with the passwords. Use it, draw the sample on S3, and train:\n")
    print(f"  source {file}")
    for pipeline in ("simulation", "training"):
        print(f"  kedro run --env production --pipelines {pipeline}")


if __name__ == "__main__":
    if sys.argv[1:] not in ([word] for word in COMMANDS):
        sys.exit("Usage: python -m deploy.local_servers up|down")
    main(sys.argv[1])
