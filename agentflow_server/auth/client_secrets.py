"""How we say who we are to an authorization server (RFC 6749 section 2.3.1)."""

import base64
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote_plus

SecretPlace = Literal["client_secret_basic", "client_secret_post"]


def present_client(
    client_id: str, client_secret: str, place: SecretPlace
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """What goes into the form, and into the headers."""
    if place == "client_secret_post":
        return {"client_id": client_id, "client_secret": client_secret}, {}
    # Both are form-encoded first, so that a colon does no harm.
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return {}, {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
