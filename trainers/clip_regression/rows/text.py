"""Text cleaning: links become tokens, and how many there were becomes numbers."""

from __future__ import annotations

import re

# A link ends at white space, quotes or brackets; punctuation that closes the sentence is not part of it.
_LINK = re.compile(r"(?:https?://|www\.)[^\s<>\"')\]]*[^\s<>\"')\].,;:!?]", re.IGNORECASE)
_YOUTUBE = re.compile(
    r"^(?:https?://)?(?:www\.|m\.|music\.)?(?:youtube\.com|youtu\.be|youtube-nocookie\.com)(?:[/?#]|$)", re.IGNORECASE
)

LINK_COLUMNS = ("yt_link_count", "url_count", "has_yt_link")


def clean_text(text: str) -> tuple[str, int, int]:
    """Replaces YouTube links by `[YT_LINK]` and all other links by `[URL]`.

    Returns:
        The cleaned text, the number of YouTube links and the number of other links.
    """
    youtube = other = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal youtube, other
        if _YOUTUBE.match(match.group()):
            youtube += 1
            return "[YT_LINK]"
        other += 1
        return "[URL]"

    return _LINK.sub(replace, text), youtube, other
