"""Signatures as https://www.standardwebhooks.com has them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import SecretStr

from agentflow_server.errors import ConfigError


class Signer:
    """Signs with every key, so that receivers may know the old one or the new one."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        """Raises ConfigError."""
        try:
            # Imported here because it is an extra.
            from standardwebhooks import Webhook  # noqa: PLC0415
        except ModuleNotFoundError as exc:
            raise ConfigError("webhooks: pip install 'agentflow-server[webhooks]'") from exc
        self._webhooks = [Webhook(key.get_secret_value()) for key in keys]

    def sign(self, delivery_id: str, body: bytes) -> Mapping[str, str]:
        """The headers of one attempt: receivers refuse those of some minutes ago."""
        moment, text = datetime.now(UTC), body.decode()
        signatures = [webhook.sign(delivery_id, moment, text) for webhook in self._webhooks]
        return {
            "webhook-id": delivery_id,
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
