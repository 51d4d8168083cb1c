#!/usr/bin/env python3
"""Links of the book.

    book_links.py preprocess        a preprocessor of mdbook: links that leave docs/ become the names of the files
    book_links.py check FOLDER      exit code 1 and a line for each link of the built pages that leads nowhere
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LINK = re.compile(r"\[([^\]]*)\]\((\.\./[^)\s]*)\)")


def name_the_file(link: re.Match[str]) -> str:
    """`[text](../path)` as `text` and, where that does not name it already, the path from the root."""
    text, path = link.group(1), posixpath.normpath(posixpath.join("docs", link.group(2).split("#")[0]))
    named = path in text or posixpath.basename(path) in text
    return text if named else f"{text} (`{path}`)"


def outside_fences(text: str) -> str:
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(name_the_file, part) for part in parts)


def chapters(items: list) -> None:
    for item in items:
        if isinstance(item, dict) and "Chapter" in item:
            item["Chapter"]["content"] = outside_fences(item["Chapter"]["content"])
            chapters(item["Chapter"]["sub_items"])


def preprocess() -> None:
    _context, book = json.load(sys.stdin)
    chapters(book["items"] if "items" in book else book["sections"])
    json.dump(book, sys.stdout)


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.anchors.add(value)
            if value and ((tag == "a" and key == "href") or (tag in ("img", "script") and key == "src")):
                self.links.append(value)


def check(folder: Path) -> int:
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        print(f"{folder}: no page")
        return 1
    dead, links = [], 0
    for path, page in pages.items():
        # Copies of all pages on one, and of one under another name: their links are those of the pages themselves.
        if path.name in ("print.html", "404.html", "toc.html"):
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            links += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            known = next((other for place, other in pages.items() if place.resolve() == target), None)
            if not target.exists():
                dead.append(f"{path.relative_to(folder)}: {link}: no such file")
            elif parts.fragment and known and unquote(parts.fragment) not in known.anchors:
                dead.append(f"{path.relative_to(folder)}: {link}: no such heading")
    print("\n".join(dead) if dead else f"{len(pages)} pages, {links} links within the book, none dead")
    return 1 if dead else 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["preprocess"]:
            preprocess()
        # mdbook asks whether a renderer is supported.
        case ["preprocess", "supports", _renderer]:
            pass
        case ["check", place]:
            sys.exit(check(Path(place)))
        case _:
            sys.exit(__doc__)
