"""What tests read in Markdown files: fenced blocks, tables, links, anchors."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")), *ROOT.glob("docs/*.md")]
)


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced code blocks in one of the languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [content for language, content in found if language in languages]


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def links(text: str) -> list[str]:
    """Targets of all links and pictures, also those in HTML."""
    plain = without_code(text)
    return re.findall(r"\]\(([^)\s]+)\)", plain) + re.findall(r"""(?:src|srcset|href)=["']([^"']+)""", plain)


def anchors(text: str) -> set[str]:
    """The anchors that a forge gives to headings."""
    headings = re.findall(r"^#+ (.+?)\s*$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.M)
    names = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in names}


def rows(text: str, header: str) -> Iterator[list[str]]:
    """The cells of each table whose header row begins as given, row by row."""
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        lines = table.splitlines()
        if lines[0].startswith(header):
            yield from ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of its level or above."""
    level = heading.split(" ")[0]
    after = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{len(level)}}} ", after, maxsplit=1, flags=re.M)[0]


def commands(block: str) -> list[str]:
    """The command lines of a shell block: continued lines joined, comments and empty lines left out."""
    joined = re.sub(r"\\\n\s*", " ", block)
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]
