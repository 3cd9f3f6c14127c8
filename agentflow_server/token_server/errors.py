"""How the token server says no: in the codes of RFC 6749, never in the words of a caller."""


class OAuthError(Exception):
    """For the body of an answer (RFC 6749 section 5.2), or for a page that redirects nobody.

    `reason` is for logs and the audit log alone: it tells apart what must look alike outside.
    """

    def __init__(
        self,
        code: str,
        description: str,
        *,
        reason: str | None = None,
        status: int = 400,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.reason = reason or code
        self.status = status
        self.retry_after = retry_after

    @classmethod
    def too_many(cls, retry_after: int, *, reason: str = "rate_limited") -> "OAuthError":
        """RFC 6749 has no code for 429; this one is understood as "try again later"."""
        return cls(
            "temporarily_unavailable",
            "Too many attempts",
            reason=reason,
            status=429,
            retry_after=retry_after,
        )


class AuthorizationRefused(Exception):
    """The client is told by sending the browser back to it (RFC 6749 section 4.1.2.1)."""

    def __init__(self, redirect_url: str, *, reason: str) -> None:
        super().__init__(reason)
        self.redirect_url = redirect_url
        self.reason = reason


class LoginRefused(Exception):
    """Whatever was wrong, and even if there is no such user: one text.

    With `retry_after` (seconds), too many attempts were made; that says nothing of a user either.
    """

    TEXT = "The username, the password or the code is wrong"
    LATER = "Too many attempts, try again later"

    def __init__(self, *, reason: str, retry_after: int | None = None) -> None:
        super().__init__(self.TEXT if retry_after is None else self.LATER)
        self.reason = reason
        self.retry_after = retry_after
