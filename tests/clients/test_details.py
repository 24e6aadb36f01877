"""The reason and the field that an engine gives reach the caller; anything else in their place does no harm."""

from __future__ import annotations

import pytest
from ousel.details import Details, read

# google.rpc.Status of INVALID_ARGUMENT with ErrorInfo and BadRequest, as google.rpc's own stubs wrote it.
PACKED = bytes.fromhex(
    "0803120f6b206d75737420626520736d616c6c1a560a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e"
    "7270632e4572726f72496e666f122a0a0f494e56414c49445f5245515545535412056f7573656c1a100a056669656c641207"
    "71756572792e6b1a5a0a29747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e4261645265717565"
    "7374122d0a2b0a0771756572792e6b120f6b206d75737420626520736d616c6c1a0f494e56414c49445f524551554553541a"
    "330a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e5265747279496e666f12070a05108084"
    "af5f"
)


def test_reason_and_field_are_read():
    assert read(PACKED) == Details("INVALID_REQUEST", "query.k")


@pytest.mark.parametrize("packed", [None, "text", b"", b"\xff\xff", PACKED[:-3], b"\x1a\x04\x0a\x02\xff\xff"])
def test_what_is_none_is_passed_over(packed):
    assert read(packed) == Details()


def test_what_another_server_says_is_none_of_ours():
    assert read(PACKED.replace(b"\x12\x05ousel", b"\x12\x05other")) == Details()
