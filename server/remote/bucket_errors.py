"""What went wrong with a bucket, as a sentence for the operator.

obstore's exceptions tell kinds apart for a single object; a listing's are all of one type. So the
status and the service's code are read from their text, of which nothing else is shown: it has
addresses of requests, which may carry a signature.
"""

import re

from trivet.server.remote.bucket_address import HOW_TO_SAY, BucketAddress
from trivet.server.remote.source import RemoteError, Unreachable

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_INVALID_KEY = re.compile(r'Path "((?:[^"\\]|\\.)*)"')
_TRANSIENT = (408, 425, 429)
_LAST_RESORT = ("/latest/api/token", "/latest/meta-data", "/computeMetadata/", "/metadata/identity")
"""Where a machine in a cloud is asked for credentials when nothing else gives any."""
_REASONS = (
    ("dns error", "its host name is not known here"),
    ("onnection refused", "nobody listens there"),
    ("certificate", "its certificate is not trusted here"),
    ("timed out", "it does not answer in time"),
    ("operation timed out", "it does not answer in time"),
)
_BUCKET = {"s3": "bucket", "gs": "bucket", "as": "container"}


def told(error: Exception, address: BucketAddress, path: str = "") -> RemoteError:
    """The error for the log. `path`: of the object that was asked for."""
    text = str(error)
    where = f"{address.text}: '{path}'" if path else address.text
    status_found, code_found = _STATUS.search(text), _CODE.search(text)
    status = int(status_found[1]) if status_found else 0
    code = code_found[1] if code_found else ""
    answer = f"{status} {code}".strip()
    how = f"{HOW_TO_SAY[address.scheme]} (or the file of TRITON_CLOUD_CREDENTIAL_PATH)"
    if any(each in text for each in _LAST_RESORT):
        return RemoteError(f"{where} cannot be read without credentials, and there are none: {how}")
    if status in (401, 403) or "Token" in code or "Authent" in code:
        return RemoteError(
            f"{where} may not be read with these credentials ({answer}): it needs the rights to "
            f"list and to read; {how}"
        )
    if _is_elsewhere(status, code, text):
        return RemoteError(f"{where} is in another region: set AWS_REGION to that of the bucket")
    if status == 404:
        return RemoteError(
            f"{where}: there is no {_BUCKET[address.scheme]} '{address.bucket}' ({answer}); check "
            "the address"
        )
    if status in _TRANSIENT or status >= 500:
        return Unreachable(f"{where}: the service is overloaded or out of order ({answer})")
    if status:
        return RemoteError(f"{where} cannot be read: the service answers {answer}")
    if "HTTP error" in text or "request" in text:
        reason = next((why for sign, why in _REASONS if sign in text), "the connection broke off")
        return Unreachable(f"{where} cannot be reached: {reason}")
    return RemoteError(f"{where} cannot be opened: {text.partition(chr(10))[0][:200]}; {how}")


def _is_elsewhere(status: int, code: str, text: str) -> bool:
    codes = ("AuthorizationHeaderMalformed", "PermanentRedirect")
    return status in (301, 307) or code in codes or "redirect without LOCATION" in text


def invalid_key(error: Exception, address: BucketAddress) -> str:
    """The object that obstore cannot read the name of, below the prefix."""
    found = _INVALID_KEY.search(str(error))
    key = found[1] if found else "?"
    return key.removeprefix(f"{address.prefix}/") if address.prefix else key
