"""The documentation is true where a machine can tell: links, named files, reason codes, messages, exit codes, flags."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from markdown import PAGES, ROOT, anchors, blocks, commands, links, rows, section, without_code

from pipelines import cli
from pipelines.commands import COMMANDS
from pipelines.config import load_config
from pipelines.exit_codes import EXIT_FAILED, EXIT_NOTHING, EXIT_USAGE
from stores.rejections import REASONS

TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = ("pipelines", "transforms", "stores", "models")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        if re.match(r"https?://|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert ROOT in target.parents or target == ROOT, link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_links_are_found_and_broken_ones_noticed() -> None:
    text = '# A `b` (c)\n[one](x.md#two) ![p](p.png) <img src="q.webp"> `[no](z.md)`\n```\n[no](y.md)\n# no\n```\n'
    assert links(text) == ["x.md#two", "p.png", "q.webp"]
    assert anchors(text) == {"a-b-c"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    places = "pipelines|transforms|stores|models|dags|recipes|tests|benchmarks|docs"
    for name in re.findall(rf"`((?:{places})/[\w./-]+\.\w+)`", text):
        assert (ROOT / name).exists(), name


def test_architecture_names_real_files() -> None:
    assert len(re.findall(r"`(?:pipelines|transforms|stores|models|dags)/\w+\.py`", ARCHITECTURE)) > 40


@pytest.mark.parametrize("page", ["troubleshooting.md", "data-model.md"])
def test_every_reason_code_is_explained(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = {reason: cause for reason, cause, _ in rows(text, "| reason | cause |")}
    assert found == {reason: cause for reason, (cause, _) in REASONS.items()}


def test_pictures_have_words() -> None:
    for page in PAGES:
        text = without_code(page.read_text(encoding="utf-8"))
        assert all(words.strip() for words in re.findall(r"!\[([^\]]*)\]\(", text)), page
        assert all(re.search(r'alt="[^"]{20,}"', tag) for tag in re.findall(r"<img[^>]*>", text)), page
    drawn = (ROOT / "docs" / "images" / "dataflow.svg").read_text(encoding="utf-8")
    assert re.search(r"<title[^>]*>\S.*</title>", drawn)
    assert re.search(r"<desc[^>]*>\S.*</desc>", drawn)


def texts_of_the_code() -> list[str]:
    """Every string of the code, a placeholder being `…`."""
    found = []
    for path in (p for room in ROOMS for p in (ROOT / room).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return [*found, (ROOT / "Makefile").read_text(encoding="utf-8")]


def documented_messages() -> list[str]:
    cells = [row[0] for row in rows(TROUBLESHOOTING, "| message |")]
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


def says(text: str, message: str) -> bool:
    """Whether a string of the code is the message, whatever stands for its `…`."""
    return re.search(".*".join(map(re.escape, message.strip().split("…"))), text, flags=re.S) is not None


def test_messages_in_troubleshooting_are_the_codes_own() -> None:
    code, messages = texts_of_the_code(), documented_messages()
    assert len(messages) > 50
    assert [m for m in messages if not any(says(text, m) for text in code)] == []
    assert not any(says(text, "no such … message at all") for text in code)


def test_exit_codes() -> None:
    found = {int(code): words for code, words in rows(section(ARCHITECTURE, "## Exit codes"), "| code |")}
    assert set(found) == {0, EXIT_FAILED, EXIT_USAGE, EXIT_NOTHING, 128 + 2, 128 + 15}
    assert found[EXIT_NOTHING].startswith("nothing to do")


def perfnet_lines() -> list[tuple[str, str]]:
    """(page, command) of every perfnet command line in the documentation; variables as words."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        inline = re.findall(r"`(perfnet [^`]+)`", text)
        shell = [line for block in blocks(text, "sh", "bash") for line in commands(block)]
        for line in [*shell, *inline]:
            for part in re.split(r"\s(?:&&|;)\s", line):
                match = re.match(r"(?:\w+=\S+ )*(?:\S*/)?(perfnet .*)", part)
                if match and "…" not in match[1]:
                    found.append((page.name, match[1]))
    return found


def parse(line: str) -> None:
    """Parses as the command line does and looks at each --section.key; runs nothing."""
    arguments = [re.sub(r"\$\{?\w+\}?", "x", word) for word in shlex.split(line)][1:]
    ours, _ = cli._split_off_beam(arguments)
    prog, function, rest = cli._find(ours, COMMANDS)
    overrides, rest = cli._split_off_overrides(rest)
    cli._parse(function, prog, rest)
    load_config(None, {k: v for k, v in overrides.items() if not re.fullmatch(r"[A-Z]+", str(v))})


@pytest.mark.parametrize(("page", "line"), perfnet_lines(), ids=lambda value: value)
def test_commands_parse(page: str, line: str) -> None:
    first, *rest = line.split()[1:]
    found = COMMANDS.get(first)
    below = found if isinstance(found, dict) else ()
    if all(word.isupper() or word in below for word in rest):
        assert first in (*COMMANDS, "--help")  # a command's name, no line to type
        return
    parse(line)


def test_wrong_commands_do_not_parse() -> None:
    for line in ("perfnet runs", "perfnet run --flow.bound_pix 3", "perfnet gc --none"):
        with pytest.raises(ValueError, match=r"unknown|unrecognized"):
            parse(line)
