"""The report in a real browser: headless Chromium, at a laptop's and a phone's width, in light and dark."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_workspace import put_report_workspace
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from pipelines.config import load_config
from pipelines.report import write_report

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LAPTOP, PHONE = 1280, 390
CONTRAST = """
const linear = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const lightness = css => {
  const [r, g, b] = css.match(/[\\d.]+/g).slice(0, 3).map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = lightness(getComputedStyle(document.body).backgroundColor);
return [...document.querySelectorAll(arguments[0])].map(e => {
  const style = getComputedStyle(e);
  const own = lightness(e.closest('svg') ? style.fill : style.color);
  return (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05);
});
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        reason = "no Chromium: apt-get install chromium chromium-driver"
        (pytest.fail if os.environ.get("PERFNET_REQUIRE_CHROMIUM") else pytest.skip)(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    workspace = put_report_workspace(tmp_path_factory.mktemp("page") / "ws")
    config = load_config(None, {"workspace": workspace})
    path, _ = write_report(config, None, config.to_yaml())
    return Path(path).as_uri()


def show(browser: Any, uri: str, *, width_px: int = LAPTOP, dark: bool = False, still: bool = False) -> None:
    size = {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": width_px < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wishes = [
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
        {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wishes})
    browser.get(uri)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width_px", [LAPTOP, PHONE])
def test_nothing_is_cut_off_and_the_console_is_clean(
    browser: Any, report: str, width_px: int, dark: bool
) -> None:
    browser.get_log("browser")
    show(browser, report, width_px=width_px, dark=dark)
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    root = "document.documentElement"
    page, view, window = browser.execute_script(
        f"return [{root}.scrollWidth, {root}.clientWidth, innerWidth]"
    )
    assert (page, window) == (view, width_px)
    outside = browser.execute_script(
        f"const right = {root}.clientWidth + 0.5;"
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre, svg'))"
        ".filter(e => e.getBoundingClientRect().right > right).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    assert browser.get_log("browser") == []


def test_the_network_is_asked_for_nothing(browser: Any, report: str) -> None:
    browser.get_log("performance")
    show(browser, report)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert report in asked
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []


def test_an_injected_script_would_not_run(browser: Any, report: str, tmp_path: Path) -> None:
    """Should a name ever slip through the escaping, the page's own policy still refuses it."""
    html = Path(report.removeprefix("file://")).read_text(encoding="utf-8")
    attack = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    (tmp_path / "attack.html").write_text(html.replace("<main", attack + "<main"), encoding="utf-8")
    show(browser, (tmp_path / "attack.html").as_uri())
    assert browser.title.startswith("perfnet report")
    assert "Content Security Policy" in str(browser.get_log("browser"))


def test_every_image_is_drawn_and_has_text(browser: Any, report: str) -> None:
    show(browser, report)
    images = browser.execute_script(
        "return [...document.images].map(i => [i.alt.length > 0, i.complete && i.naturalWidth > 0])"
    )
    assert len(images) == 10
    assert all(all(image) for image in images)
    names = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => s.role + s.ariaLabel)"
    )
    assert len(names) == 3
    assert all(name.startswith("img") and len(name) > 10 for name in names)


def test_nothing_moves_for_people_who_ask_for_that(browser: Any, report: str) -> None:
    sources = {}
    for still in (False, True):
        show(browser, report, still=still)
        sources[still] = browser.execute_script("return [...document.images].map(i => i.currentSrc.length)")
    assert all(a > b for a, b in zip(sources[False], sources[True], strict=True))


def test_sections_are_reached_by_keyboard(browser: Any, report: str) -> None:
    show(browser, report)
    sections = browser.execute_script("return [...document.querySelectorAll('section')].map(s => s.id)")
    focused = []
    for _ in range(len(sections) + 1):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        focused.append(browser.switch_to.active_element.get_attribute("href").rpartition("#")[2])
    assert focused == ["main", *sections]
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.execute_script("return location.hash") == f"#{sections[-1]}"
    show(browser, report)
    browser.switch_to.active_element.send_keys(Keys.TAB)
    box = browser.switch_to.active_element.rect
    assert box["x"] >= 0  # the skip link comes into view
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "main"


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_in_light_and_dark(browser: Any, report: str, dark: bool) -> None:
    show(browser, report, dark=dark)
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    texts = "h1, h2, p, td, th, .caption, figcaption, a:not(.skip), summary, svg text"
    contrasts = browser.execute_script(CONTRAST, texts)
    assert len(contrasts) > 200
    assert min(contrasts) >= 4.5  # WCAG AA
