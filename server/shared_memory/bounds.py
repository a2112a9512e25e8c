"""What may be read or written of a shared memory region, wherever it lies. Pure."""

from trivet.backends.api import InvalidRequest

_MAX_INT64 = 2**63 - 1


def check_sum(name: str, offset: int, byte_size: int) -> None:
    """Raises InvalidRequest where the two together are more than an int64 holds."""
    if offset + byte_size > _MAX_INT64:
        raise InvalidRequest(
            f"Integer overflow detected: byte_size ({byte_size}) + offset ({offset}) of shared "
            f"memory region '{name}' is past {_MAX_INT64}"
        )


def check_slice(name: str, region_bytes: int, offset: int, byte_size: int) -> None:
    """Raises InvalidRequest for what is not within the region."""
    check_sum(name, offset, byte_size)
    if not 0 <= offset <= region_bytes:
        raise InvalidRequest(
            f"Invalid offset for shared memory region: '{name}': offset {offset} is outside of its "
            f"{region_bytes} bytes"
        )
    if byte_size < 0 or offset + byte_size > region_bytes:
        raise InvalidRequest(
            f"Invalid offset + byte size for shared memory region: '{name}': {offset} + "
            f"{byte_size} is past its {region_bytes} bytes"
        )


def check_room(name: str, max_byte_size: int, size_bytes: int) -> None:
    """Raises InvalidRequest for results that need more than the request gives them."""
    if size_bytes > max_byte_size:
        raise InvalidRequest(
            f"shared memory size specified with the request for region '{name}' "
            f"({max_byte_size} bytes) should be at least {size_bytes} bytes to hold the results"
        )
