"""What holds between several methods of authentication."""

from collections.abc import Sequence

from agentflow_server.config.explain import Problems
from agentflow_server.config.methods import (
    ApiKeyConfig,
    AuthConfig,
    IntrospectionConfig,
    JwtConfig,
    JwtSection,
    MethodSection,
    NoAuthConfig,
    find_issuer,
)


def check_combination(
    places: Sequence[str], sections: Sequence[MethodSection], problems: Problems
) -> None:
    """What can be seen before the keys are looked for."""
    if len(sections) < 2:
        return
    for place, section in zip(places, sections, strict=True):
        if isinstance(section, NoAuthConfig):
            problems.add(place, '"none" cannot be one of several methods')
    for kind, why in (
        (ApiKeyConfig, '"api_key" is written already'),
        (IntrospectionConfig, "an opaque token does not say which of two servers it is from"),
    ):
        for place in _surplus(places, [isinstance(section, kind) for section in sections]):
            problems.add(place, why)
    without = [isinstance(section, JwtSection) and not section.issuer for section in sections]
    for place in _surplus(places, without):
        problems.add(
            f"{place}.issuer", "is missing; of several JWT methods only one may do without"
        )


def owner_of_variables(sections: Sequence[MethodSection]) -> int | None:
    """Which JWT method the JWT_ variables belong to: the only one, or of several the one without
    an issuer of its own. An issuer's keys are never replaced by a variable of another's."""
    jwt = {n: section for n, section in enumerate(sections) if isinstance(section, JwtSection)}
    if len(jwt) == 1:
        return next(iter(jwt))
    return next((n for n, section in jwt.items() if section.issuer is None), None)


def check_issuers(places: Sequence[str], methods: Sequence[AuthConfig], problems: Problems) -> None:
    """What can be seen when every method is complete."""
    seen: dict[str, str] = {}
    for place, method in zip(places, methods, strict=True):
        if isinstance(method, JwtConfig) and method.issuer is not None:
            first = seen.setdefault(method.issuer, place)
            if first != place:
                problems.add(f"{place}.issuer", f"is that of {first} too")
    _check_primary(places, methods, problems)


def _check_primary(
    places: Sequence[str], methods: Sequence[AuthConfig], problems: Problems
) -> None:
    first: tuple[str, str | None] | None = None
    for place, method in zip(places, methods, strict=True):
        if not isinstance(method, JwtConfig | IntrospectionConfig) or not method.primary:
            continue
        issuer = find_issuer(method)
        if issuer is None:
            problems.add(f"{place}.primary", "is for a method with an issuer")
        first = first or (place, issuer)
        if issuer != first[1]:
            problems.add(f"{place}.primary", f"{first[0]} is primary already, of another issuer")


def _surplus(places: Sequence[str], chosen: Sequence[bool]) -> Sequence[str]:
    return [place for place, is_chosen in zip(places, chosen, strict=True) if is_chosen][1:]
