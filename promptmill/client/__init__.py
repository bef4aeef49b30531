"""The SDK: `Client` talks to a farm over HTTP and `Job` is one submission of it. Needs
httpx only; knows nothing of the servers behind the API."""

from promptmill.client.client import Client
from promptmill.client.downloads import Download
from promptmill.client.exports import Export, Exported
from promptmill.client.image import Image
from promptmill.client.job import Counts, Job
from promptmill.client.sources import Body, Rows, body
from promptmill.client.verification import Verification

__all__ = [
    "Body",
    "Client",
    "Counts",
    "Download",
    "Export",
    "Exported",
    "Image",
    "Job",
    "Rows",
    "Verification",
    "body",
]
