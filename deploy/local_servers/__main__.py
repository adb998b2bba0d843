"""``python -m deploy.local_servers up | down``: what ``make up-local`` and ``make down-local`` run."""

import os
import sys
from pathlib import Path

from deploy.local_servers.programs import ServerError
from deploy.local_servers.servers import Ports, Servers

FOLDER = Path(".servers")


def main(command: str) -> None:
    """Start the servers and print how to use them, or stop them."""
    ports = Ports(*(int(os.environ[name]) for name in ("POSTGRES_PORT", "S3_PORT", "TRACKING_PORT")))
    servers = Servers(FOLDER, ports)
    try:
        if command == "down":
            servers.stop()
            print(f"Stopped. The data are in {FOLDER}/; `make up-local` starts the servers with them again.")
            return
        servers.start()
    except ServerError as error:
        sys.exit(str(error))
    file = servers.write_environment()
    print("PostgreSQL, S3 and MLflow run on loopback. These settings point the project at them:\n", flush=True)
    for name, value in servers.locations().items():
        print(f"  export {name}={value}")
    print(f"\nThe same with the passwords is in {FOLDER / file.name}. Use it, draw the sample on S3, and train:\n")
    print(f"  source {FOLDER / file.name}")
    for pipeline in ("simulation", "training"):
        print(f"  kedro run --env production --pipelines {pipeline}")


if __name__ == "__main__":
    main(sys.argv[1])
