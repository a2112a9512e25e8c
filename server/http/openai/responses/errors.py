"""What this API says where it finds nothing."""

from trivet.backends.api import InvalidRequest, NotFound


class ResponseNotFound(NotFound):
    """No response of that id is kept for the caller."""

    def __init__(self, response_id: str) -> None:
        super().__init__(
            f"response '{response_id[:128]}' is not kept here: it was never made with this key, "
            "not to be kept (store=false), deleted, or made room for newer ones "
            "(--response-store-count, --response-store-size)"
        )


class PreviousResponseNotFound(InvalidRequest):
    """A request goes on from a response that is not there, or whose beginning is not."""

    def __init__(self, response_id: str) -> None:
        missing = ResponseNotFound(response_id)
        super().__init__(f"previous_response_id: {missing.message}")
