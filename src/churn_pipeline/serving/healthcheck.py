"""Health check of the image: asks the service whether it is ready, at the address that it wrote to its address file.

It runs as a file of its own and imports only the standard library, because it runs every few seconds.
"""

import os
import ssl
import sys
from pathlib import Path
from urllib.request import urlopen

ATTEMPTS = 3


def check_health(url: str) -> str | None:
    """Return what is wrong with the service at `url`; None if it is ready."""
    unverified = ssl.create_default_context()
    # The certificate names the public host, and this connection stays inside the container.
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    problem = ""
    for _ in range(ATTEMPTS):
        try:
            with urlopen(f"{url}/readyz", timeout=2, context=unverified):  # noqa: S310  # the service wrote the URL
                return None
        except OSError as error:
            problem = str(error)
            # Only a running service can require a client certificate, and this check has none.
            if "CERTIFICATE_REQUIRED" in problem:
                return None
            # A connection that is closed with unread data is reset, and the client may not see the service's reason.
            if not isinstance(getattr(error, "reason", error), ConnectionResetError):
                break
    return problem


def main() -> int:
    """Check the service of this container, and return the exit code."""
    try:
        url = Path(os.environ["CHURN_SERVING_ADDRESS_FILE"]).read_text(encoding="ascii").strip()
    except (KeyError, OSError) as error:
        problem: str | None = f"The address of the service cannot be read: {error!r}"
    else:
        problem = check_health(url)
    if problem:
        sys.stderr.write(f"{problem}\n")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
