"""Takes a file of captured records to its bucket: encrypted where its config names a key, under SageMaker's key layout.

The name of the object follows from the file alone, so that taking it there twice does no harm.
"""

from __future__ import annotations

import io
import time
from pathlib import Path

from eyrie.adapters.artifacts import signing_key
from eyrie.adapters.capture_keys import EXTRA, CaptureKeys
from eyrie.adapters.s3_client import S3Client, S3Refused, S3Unavailable
from eyrie.decide.capture import object_of
from eyrie.domain.capture import CaptureFile
from eyrie.domain.names import EndpointKey
from eyrie.ports import ArtifactError


class NotDelivered(Exception):
    """It could not be taken to its bucket now; the message says why."""


class CaptureBuckets:
    """Writes objects as the endpoint's account. Used by one thread."""

    def __init__(self, objects: Path, credentials: Path | None, keys: CaptureKeys) -> None:
        """`objects` is the S3 API's socket; `credentials` None: nothing is verified."""
        self._objects = objects
        self._credentials = credentials
        self._keys = keys

    def put(self, file: CaptureFile, records: bytes) -> str:
        """Store the records as the file's object; its URI. Raises NotDelivered."""
        scope = EndpointKey.from_slug(file.slug).scope
        began = time.gmtime(file.began_ms // 1000)
        clock = f"{time.strftime('%M-%S', began)}-{file.began_ms % 1000:03d}"
        bucket, key = object_of(file, time.strftime("%Y/%m/%d/%H", began), clock)
        try:
            body = self._keys.seal(scope.account, file.kms_key, records) if file.kms_key else records
            with S3Client(self._objects, signing_key(self._credentials, scope), scope.region) as client:
                client.put(bucket, key, io.BytesIO(body), len(body))
        except ImportError:
            raise NotDelivered(f"to encrypt needs {EXTRA}") from None
        except S3Refused as error:
            raise NotDelivered(f"s3://{bucket} refused it: {error}") from None
        except (S3Unavailable, ArtifactError, OSError) as error:
            raise NotDelivered(str(error)) from None
        return f"s3://{bucket}/{key}"
