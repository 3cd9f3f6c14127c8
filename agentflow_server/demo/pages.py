"""The provider's pages: forms without scripts, and nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from urllib.parse import urlsplit

from starlette.responses import HTMLResponse

from agentflow_server.demo.records import AUTH_METHODS, Client, User

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { margin: 0 auto; max-width: 40rem; padding: 1rem 1.5rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
label, input, textarea, select { display: block; box-sizing: border-box; width: 100%; font: inherit }
label { margin-top: 1rem }
input, textarea, select, button { padding: .5rem; border: 1px solid; border-radius: .25rem }
button { margin: 1rem .5rem 0 0; cursor: pointer; font: inherit; font-weight: 600 }
dt { font-weight: 600 } dd { margin: 0 0 .5rem; overflow-wrap: anywhere }
footer { margin-top: 3rem; opacity: .8 }
[role=alert] { padding: .5rem; border: 2px solid #c62828; border-radius: .25rem }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{content}
<footer>For development and tests only: there are no passwords, and all is forgotten when this
provider stops.</footer>
</body>
</html>
"""

# A form without an action is sent to the address of its page, query included.
_SIGN_UP = """<form method="post">
<label for="username">{label}</label>
<input id="username" name="username" required maxlength="64" autocomplete="off">
<button>Log in / Sign up</button>
</form>"""

_CONSENT = """<p><strong>{client}</strong> asks <strong>{user}</strong> for access.
Afterwards you go back to {destination}.</p>
<ul>{scopes}</ul>
<form method="post">
<button name="decision" value="allow" id="allow">Allow</button>
<button name="decision" value="deny" id="deny">Deny</button>
</form>
<h2>Not {user}?</h2>
{sign_up}"""

_CREATE_CLIENT = """<form method="post">
<label for="client_name">Client Name</label>
<input id="client_name" name="client_name" value="{client_name}" required>
<label for="client_uri">Client URI</label>
<input id="client_uri" name="client_uri" value="{client_uri}">
<label for="scope">Allowed Scope</label>
<input id="scope" name="scope" value="{scope}">
<label for="redirect_uri">Redirect URIs</label>
<textarea id="redirect_uri" name="redirect_uri" rows="3" required>{redirect_uri}</textarea>
<label for="grant_type">Allowed Grant Types</label>
<textarea id="grant_type" name="grant_type" rows="3" required>{grant_type}</textarea>
<label for="response_type">Allowed Response Types</label>
<textarea id="response_type" name="response_type" rows="2" required>{response_type}</textarea>
<label for="token_endpoint_auth_method">Token Endpoint Auth Method</label>
<select id="token_endpoint_auth_method" name="token_endpoint_auth_method">{methods}</select>
<button>Submit</button>
</form>"""

_HOME = """<form method="post" action="/logout">
<p>You are logged in as <strong>{user}</strong>.</p><button>Log out</button></form>
<h2>Clients</h2>
<p><a href="/create_client">Create Client</a></p>
{clients}
<h2>Connected</h2>
{connected}"""


def sign_up_page(message: str | None = None, *, for_client: Client | None = None) -> HTMLResponse:
    label = "Any name"
    if for_client is not None:
        label = f"Any name, to go on to {escape(for_client.name)}"
    content = _alert(message) + _SIGN_UP.format(label=label)
    return _page("Demo OAuth provider", content, failed=message is not None)


def home_page(user: User, clients: Iterable[Client], connected: Sequence[Client]) -> HTMLResponse:
    content = _HOME.format(
        user=escape(user.name),
        clients="".join(map(_show_client, clients)) or "<p>None yet.</p>",
        connected="".join(map(_show_connection, connected)) or "<p>No client acts for you.</p>",
    )
    return _page("Demo OAuth provider", content)


def create_client_page(form: Mapping[str, str], message: str | None = None) -> HTMLResponse:
    names = ("client_name", "client_uri", "scope", "redirect_uri", "grant_type", "response_type")
    chosen = form.get("token_endpoint_auth_method")
    methods = "".join(
        f"<option{' selected' if method == chosen else ''}>{method}</option>"
        for method in AUTH_METHODS
    )
    values = {name: escape(form.get(name, "")) for name in names}
    content = _alert(message) + _CREATE_CLIENT.format(methods=methods, **values)
    return _page("Create Client", content, failed=message is not None)


def consent_page(client: Client, user: User, scope: str, redirect_uri: str) -> HTMLResponse:
    origin = _origin_of(redirect_uri)
    content = _CONSENT.format(
        client=escape(client.name),
        user=escape(user.name),
        destination=escape(origin),
        scopes="".join(f"<li>{escape(word)}</li>" for word in scope.split()),
        sign_up=_SIGN_UP.format(label="Another name"),
    )
    # Browsers ask the policy about the redirect that answers the form, too. It cannot name IPv6.
    back = "http:" if "[" in origin else origin
    return _page("Allow access?", content, form_action=f"'self' {back}")


def refusal_page(message: str) -> HTMLResponse:
    """What is wrong with a request whose sender nobody may be sent back to."""
    return _page("This cannot go on", _alert(message), failed=True)


def _show_client(client: Client) -> str:
    facts = {
        "Client ID": ("client-id", client.id),
        "Client Secret": ("client-secret", client.secret or "(none: a public client)"),
        "Client URI": ("client-uri", client.uri),
        "Allowed Scope": ("scope", client.scope),
        "Redirect URIs": ("redirect-uris", " ".join(client.redirect_uris)),
        "Allowed Grant Types": ("grant-types", " ".join(client.grant_types)),
        "Allowed Response Types": ("response-types", " ".join(client.response_types)),
        "Token Endpoint Auth Method": ("auth-method", client.auth_method),
    }
    rows = "".join(
        f'<dt>{label}</dt><dd><code class="{name}">{escape(value)}</code></dd>\n'
        for label, (name, value) in facts.items()
    )
    return f"<h3>{escape(client.name)}</h3>\n<dl>{rows}</dl>\n"


def _show_connection(client: Client) -> str:
    return (
        '<form method="post" action="/disconnect">'
        f'<input type="hidden" name="client_id" value="{escape(client.id)}">'
        f"<strong>{escape(client.name)}</strong> <button>Disconnect</button></form>\n"
    )


def _alert(message: str | None) -> str:
    return f'<p role="alert">{escape(message)}</p>\n' if message else ""


def _page(
    title: str, content: str, *, failed: bool = False, form_action: str = "'self'"
) -> HTMLResponse:
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
        f"form-action {form_action}; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    page = _PAGE.format(title=escape(title), style=_STYLE, content=content)
    return HTMLResponse(page, 400 if failed else 200, headers)


def _origin_of(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"
