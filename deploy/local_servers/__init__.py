"""PostgreSQL, S3 and an MLflow tracking server on loopback, for one person or a test.

``make up-local`` and ``make down-local`` call this package. All state is in one folder.
"""

from deploy.local_servers.servers import Servers

__all__ = ["Servers"]
