"""Health check of the image: asks the service whether it is ready, at the address that it wrote to its address file.

It runs as a file of its own and imports only the standard library, because it runs every few seconds.
"""

import os
import socket
import ssl
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

TIMEOUT_SECONDS = 2


def check_health(url: str) -> str | None:
    """Return what is wrong with the service at `url`; None if it is ready."""
    unverified = ssl.create_default_context()
    # The certificate names the public host, and this connection stays inside the container.
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        with urlopen(f"{url}/readyz", timeout=TIMEOUT_SECONDS, context=unverified):  # noqa: S310  # the service wrote the URL
            return None
    except HTTPError as error:
        return str(error)
    except OSError as error:
        # Only a running service can require a client certificate, and this check has none.
        return None if _requires_certificate(url, unverified) else str(error)


def _requires_certificate(url: str, context: ssl.SSLContext) -> bool:
    """Whether the service refuses a TLS connection because it has no client certificate.

    It sends no request: the service would close the connection with unread data, and its reason could get lost.
    """
    address = urlsplit(url)
    try:
        with socket.create_connection((address.hostname, address.port), TIMEOUT_SECONDS) as plain:
            context.wrap_socket(plain).recv(1)
    except OSError as error:
        return "CERTIFICATE_REQUIRED" in str(error)
    return False


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
