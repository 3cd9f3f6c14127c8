"""The page on which a user logs in: one form, no script, nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from urllib.parse import urlsplit

from fastapi import Response

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { margin: 0; min-height: 100vh; display: grid; place-items: center }
main { box-sizing: border-box; width: min(24rem, 100%); padding: 1.5rem }
h1 { font-size: 1.25rem }
label, input, button { display: block; box-sizing: border-box; width: 100%; font: inherit }
label { margin-top: 1rem }
input, button { padding: .5rem; border: 1px solid; border-radius: .25rem }
button { margin-top: 1.5rem; cursor: pointer; font-weight: 600 }
small { opacity: .8 }
[role=alert] { padding: .5rem; border: 2px solid #c62828; border-radius: .25rem }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{content}
</main>
</body>
</html>
"""

# Without an action, it is sent to where the page came from: with the whole request, wherever we are
# mounted.
_FORM = """<p>to go on to <strong>{client}</strong><br><small>{destination}</small></p>
{alert}<form method="post">
<input type="hidden" name="form_token" value="{form_token}">
<label for="username">Username</label>
<input id="username" name="username" value="{username}" required maxlength="128"
 autocomplete="username" autocapitalize="none" spellcheck="false"{focus_name}>
<label for="password">Password</label>
<input id="password" name="password" type="password" required
 autocomplete="current-password"{focus_password}>
<label for="totp">Code of your second factor <small>(if you have one)</small></label>
<input id="totp" name="totp" inputmode="numeric" maxlength="10" autocomplete="one-time-code">
<button>Log in</button>
</form>"""


def login_page(
    *,
    client: str,
    redirect_uri: str,
    form_token: str,
    username: str = "",
    message: str | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """`message` is why the last attempt did not succeed."""
    alert = f'<p role="alert">{escape(message)}</p>\n' if message else ""
    content = _FORM.format(
        client=escape(client),
        destination=escape(_origin_of(redirect_uri)),
        form_token=escape(form_token),
        username=escape(username),
        alert=alert,
        focus_name="" if username else " autofocus",
        focus_password=" autofocus" if username else "",
    )
    targets = f"'self' {_form_source(redirect_uri)}"
    return _page("Log in", content, status, form_action=targets, headers=headers)


def refusal_page(message: str, *, status: int) -> Response:
    """What is wrong with the request itself: nobody is sent back to whoever made it."""
    content = f'<p role="alert">{escape(message)}</p>'
    return _page("This login cannot begin", content, status, form_action="'none'")


def _page(
    title: str,
    content: str,
    status: int,
    *,
    form_action: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    page = _PAGE.format(title=escape(title), style=_STYLE, content=content)
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
        f"form-action {form_action}; base-uri 'none'; frame-ancestors 'none'"
    )
    return Response(
        page,
        status,
        media_type="text/html",
        headers={
            "Content-Security-Policy": policy,
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            **(headers or {}),
        },
    )


def _origin_of(redirect_uri: str) -> str:
    parts = urlsplit(redirect_uri)
    return f"{parts.scheme}://{parts.netloc}"


def _form_source(redirect_uri: str) -> str:
    """What the answer to the form may redirect to: browsers ask `form-action` for that, too.

    A policy cannot name an IPv6 address.
    """
    parts = urlsplit(redirect_uri)
    return f"{parts.scheme}:" if "[" in parts.netloc else _origin_of(redirect_uri)
