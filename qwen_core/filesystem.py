"""Local paths and object stores as one: the file system of an address, through pyarrow.

Light to import, for the store, the jobs and the readers all open files here.
"""

from __future__ import annotations

import errno
import functools
import os
import uuid
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from qwen_core.errors import InputError, PlatformError

_AWS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)


_PASSING = (
    *(errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ENOTCONN),
    *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.ENETUNREACH, errno.EHOSTUNREACH),
    *(errno.ENOSPC, errno.EDQUOT),
)
_PASSING_WORDS = ("NETWORK_CONNECTION", "SLOW_DOWN", "SERVICE_UNAVAILABLE", "REQUEST_TIMEOUT", "INTERNAL_FAILURE")


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """Find the file system of an address.

    Credentials, region and endpoint of `s3://` are those of the usual AWS variables and files. pyarrow 25.0.1 reads
    all of them but the endpoint: `AWS_ENDPOINT_URL_S3`, or `AWS_ENDPOINT_URL`, is handed to it here.

    Args:
        uri: A local path, or an address such as `s3://bucket/folder`.

    Returns:
        The file system, and the path in it.

    Raises:
        InputError: The address is of no known scheme.
    """
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    if uri.startswith("s3://"):
        address, _, query = uri.removeprefix("s3://").partition("?")
        if "=" not in query:  # the ? of a glob
            address, query = uri.removeprefix("s3://"), ""
        filesystem = _s3(address.partition("/")[0], query, tuple(os.environ.get(name, "") for name in _AWS))
        return filesystem, address.rstrip("/")
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (ValueError, OSError) as fault:
        raise InputError(f"{uri} cannot be opened: {reason_of(fault)}") from fault
    return filesystem, path


def check_bytes_come_back(uri: str) -> None:
    """Write a small file, read it and remove it: a store that keeps other bytes than it is given spoils every artifact.

    Some S3-compatible stores keep the frames of a chunked upload as if they were data: the AWS SDKs of pyarrow and
    boto3 send checksums behind the data unless told otherwise.

    Args:
        uri: A folder, local or in an object store, whose bucket exists.

    Raises:
        PlatformError: Other bytes came back, or none; the message says what to set.
    """
    filesystem, folder = open_filesystem(uri)
    sent = b"qwen-core writes this to see whether it comes back. " * 40
    path = f"{folder}/.probe-{uuid.uuid4().hex}"
    try:
        with filesystem.open_output_stream(path) as stream:
            stream.write(sent)
        with filesystem.open_input_stream(path) as stream:
            received = stream.read()
        filesystem.delete_file(path)
    except OSError as fault:
        raise PlatformError(f"{uri} does not take files: {reason_of(fault)}") from fault
    if received != sent:
        raise PlatformError(
            f"{uri} gave back other bytes than it was given ({len(received)} for {len(sent)}): the store seems not to "
            "know checksums behind the data. Set AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
            "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required (with Docker Compose: S3_CHECKSUMS=when_required in .env)"
        )


def reason_of(fault: Exception) -> str:
    """Say in few words why a file or an object store did not open.

    Args:
        fault: What pyarrow or Python raised.

    Returns:
        One line, with the next step where one is known.
    """
    text = " ".join(str(fault).split())
    if "ACCESS_DENIED" in text or "HTTP status 403" in text or "INVALID_ACCESS_KEY" in text or "SIGNATURE" in text:
        return "access refused: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights of that user"
    if "NO_SUCH_BUCKET" in text:
        return "no such bucket"
    if "NETWORK_CONNECTION" in text:
        return "the object store cannot be reached: check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the network"
    return text[:300] or type(fault).__name__


def is_passing(fault: BaseException) -> bool:
    """Tell a fault of the machine or the network, which another try may not meet, from one of the data.

    Args:
        fault: What a reader raised.

    Returns:
        Whether it passes: then the work must fail and be tried again, or data would be lost for good.
    """
    if isinstance(fault, MemoryError):
        return True
    if not isinstance(fault, OSError):
        return False
    return fault.errno in _PASSING or any(word in str(fault) for word in _PASSING_WORDS)


@functools.lru_cache(maxsize=64)
def _s3(bucket: str, query: str, environment: tuple[str, ...]) -> pafs.FileSystem:
    """Open a bucket's file system, once for each environment: each holds connections of its own."""
    settings = dict(zip(_AWS, environment, strict=True))
    endpoint = settings["AWS_ENDPOINT_URL_S3"] or settings["AWS_ENDPOINT_URL"]
    if not endpoint or "endpoint_override=" in query:
        uri = f"s3://{bucket}" + (f"?{query}" if query else "")
        try:
            return pafs.FileSystem.from_uri(uri)[0]
        except (ValueError, OSError) as fault:
            raise InputError(f"{uri} cannot be opened: {reason_of(fault)}") from fault
    parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    # An S3-compatible store knows no regions of AWS, but wants some name of one.
    region = settings["AWS_REGION"] or settings["AWS_DEFAULT_REGION"] or "us-east-1"
    return pafs.S3FileSystem(
        endpoint_override=parts.netloc, scheme=parts.scheme, region=region, allow_bucket_creation=True
    )
