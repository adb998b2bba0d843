"""Which proxies may report a client's address.

uvicorn replaces a client's address by ``X-Forwarded-For`` if the connection comes from an address in ``FORWARDED_ALLOW_IPS``.
Its default trusts this machine, so any local process, and any client of a proxy that passes the header on, could choose its
address. The setting ``trusted_proxies`` replaces that variable; its default trusts nobody.
"""

import ipaddress
import os
from collections.abc import Iterable

VARIABLE = "FORWARDED_ALLOW_IPS"


def trust_proxies(proxies: Iterable[str]) -> None:
    """Let uvicorn trust these addresses and networks only. Call it before uvicorn's configuration is made.

    Parameters
    ----------
    proxies
        Addresses and networks. Each IPv4 network is trusted in its IPv6 form too, in which a dual-stack socket reports it.
    """
    networks = [ipaddress.ip_network(proxy) for proxy in proxies]
    mapped = [f"::ffff:{one.network_address}/{96 + one.prefixlen}" for one in networks if one.version == 4]
    os.environ[VARIABLE] = ",".join([*map(str, networks), *mapped])
