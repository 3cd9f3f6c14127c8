"""What is wrong with a card, as exceptions. No message has the token in it.

CardError
├── CardNotFound      no file, or no variable
├── BadCard           it is there, and no card: its members, its URL, who can read it
├── CardRefused       whoever was asked says no
│   └── CardExpired   the token's own time is over
└── CardUnverified    nobody could be asked, so nobody has said yes
"""

from agentflow_server.errors import AgentflowError


class CardError(AgentflowError):
    """The agent does not run."""

    code = "card_error"


class CardNotFound(CardError):
    """There is no such file, or the variables are not set."""

    code = "card_not_found"


class BadCard(CardError):
    """The card itself has to be mended, or made anew."""

    code = "bad_card"


class CardRefused(CardError):
    """The token is not good: wrong, revoked, or another server's."""

    code = "card_refused"


class CardExpired(CardRefused):
    """The token was good once; a new card is needed."""

    code = "card_expired"


class CardUnverified(CardError):
    """The server did not answer, or not as a server of ours does. Never means "allow"."""

    code = "card_unverified"
