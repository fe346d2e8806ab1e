"""What Label Studio's refusals mean.

Label Studio gives its refusals no codes, only sentences. This module is the one place that reads
them; everything else asks for a `Refusal`. The sentences are those of Label Studio 1.23.
"""

from __future__ import annotations

from enum import StrEnum


class Refusal(StrEnum):
    """A reason of Label Studio's that its HTTP status alone does not tell."""

    LEGACY_TOKENS_OFF = "legacy_tokens_off"
    """The organization allows no legacy tokens."""
    PERSONAL_TOKENS_OFF = "personal_tokens_off"
    """The organization allows no personal access tokens: a valid one counts for nothing."""
    PRIVATE_ADDRESS = "private_address"
    """Its SSRF protection blocks an address in a reserved network."""
    UNKNOWN_HOST = "unknown_host"
    """It cannot resolve a host name."""
    INVALID_URL = "invalid_url"
    """It does not take an address for a URL, e.g. because its host has no dot."""
    BACKEND_UNAUTHORIZED = "backend_unauthorized"
    """An ML backend answered 401 when Label Studio tried it."""


_PHRASES = {
    Refusal.LEGACY_TOKENS_OFF: ("legacy token",),
    Refusal.PERSONAL_TOKENS_OFF: ("credentials were not provided",),
    Refusal.PRIVATE_ADDRESS: ("reserved network", "resolves to"),
    Refusal.UNKNOWN_HOST: ("resolve hostname",),
    Refusal.INVALID_URL: ("Enter a valid URL",),
    # Label Studio quotes the exception of the Python package requests.
    Refusal.BACKEND_UNAUTHORIZED: ("401 Client Error",),
}


def read_refusal(reply: str) -> Refusal | None:
    """The reason in Label Studio's words; None where its status says all, or it is not known."""
    for refusal, phrases in _PHRASES.items():
        if any(phrase in reply for phrase in phrases):
            return refusal
    return None
