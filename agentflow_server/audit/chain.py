"""Events → lines, each holding the hash of the one before it: nothing can be changed unnoticed.

A line is a JSON object in ASCII that ends with `"prev":"…","hash":"…"`. The hash is SHA-256 over
the bytes of the line without its last member; with a key it is HMAC-SHA-256, and then only who has
the key can write a line. Without one, whoever may write the log could also compute it anew.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agentflow_server.models import AuditEvent

_LINE = re.compile(
    r'(?P<body>\{"seq":(?P<seq>[0-9]{1,18}),.*"prev":"(?P<prev>[0-9a-f]{64})"),'
    r'"hash":"(?P<hash>[0-9a-f]{64})"\}'
)
_LONGEST = 512
"""Characters that are kept of a field: a client must not fill the disk through a `kid`."""

_FIELDS = (
    "action",
    "result",
    "reason",
    "user_id",
    "method",
    "issuer",
    "token_id",
    "algorithm",
    "key_id",
    "client",
    "route",
    "request_id",
)


@dataclass(frozen=True, slots=True)
class Link:
    """What the next line is tied to: the number and the hash of the one before."""

    seq: int
    hash: str


START = Link(0, "0" * 64)


@dataclass(frozen=True, slots=True)
class SealedLine:
    """A line that looks like one of ours; whether it is genuine says `Chain.is_genuine`."""

    seq: int
    prev: str
    hash: str
    body: str

    @property
    def link(self) -> Link:
        return Link(self.seq, self.hash)


class Chain:
    """Seals lines, and recognises sealed ones."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key

    @property
    def is_keyed(self) -> bool:
        return self._key is not None

    def extend(self, link: Link, events: Iterable[AuditEvent]) -> tuple[Sequence[str], Link]:
        """The lines that follow `link`, and the last one's own."""
        lines = []
        for event in events:
            members = {"seq": link.seq + 1, **_members(event), "prev": link.hash}
            # ASCII only: control and bidi characters and line separators all come out escaped.
            text = json.dumps(members, separators=(",", ":")).replace("\x7f", "\\u007f")
            body = text[:-1]
            link = Link(link.seq + 1, self._hash(body))
            lines.append(f'{body},"hash":"{link.hash}"}}')
        return lines, link

    def is_genuine(self, line: SealedLine) -> bool:
        return hmac.compare_digest(self._hash(line.body), line.hash)

    def _hash(self, body: str) -> str:
        if self._key is None:
            return hashlib.sha256(body.encode()).hexdigest()
        return hmac.digest(self._key, body.encode(), "sha256").hex()


def parse_line(text: str) -> SealedLine | None:
    match = _LINE.fullmatch(text)
    if match is None or not text.isascii():
        return None
    return SealedLine(int(match["seq"]), match["prev"], match["hash"], match["body"])


def find_link(newest_first: Iterable[str]) -> Link | None:
    """What to go on from: the newest line that is one, None if there is none."""
    return next((line.link for text in newest_first if (line := parse_line(text))), None)


def _members(event: AuditEvent) -> Mapping[str, object]:
    moment = datetime.fromtimestamp(event.time, UTC)
    members: dict[str, object] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    }
    for name in _FIELDS:
        if value := getattr(event, name):
            members[name] = _clip(value)
    if event.details:
        members["details"] = {_clip(name): _clip(value) for name, value in event.details.items()}
    return members


def _clip(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
