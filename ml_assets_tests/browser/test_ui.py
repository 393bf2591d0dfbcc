"""The UI as people use it: a real browser on a real platform, with schedules and sensors on."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from ml_assets.build import build_definitions
from ml_assets.environment import load_environment
from ml_assets_tests.browser.conftest import DESKTOP, PATIENCE_MS
from ml_assets_tests.browser.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Shoot = Callable[..., None]
RUN_MS = 120_000  # for a queued run to start, work and end
PHONE = {"width": 390, "height": 844}


def open_asset(page: Any, stack: Stack, stage: str, view: str = "") -> None:
    page.goto(f"{stack.url}/assets/claims/{stage}" + (f"?view={view}" if view else ""))


def materialise(page: Any, days: str, button: str, shoot: Shoot) -> None:
    """What a person does in the dialog behind *Materialize…*."""
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog")
    selection = dialog.get_by_role("textbox").first
    selection.fill(days)
    selection.press("Enter")
    launch = dialog.get_by_role("button", name=button)
    launch.wait_for()
    shoot(page, f"dialog_{button.replace(' ', '_').lower()}")
    launch.click()
    dialog.wait_for(state="hidden")


def see_green(page: Any, stack: Stack, stage: str, day: str) -> None:
    """Wait until the list of partitions shows a day as there, and open the day."""
    from playwright.sync_api import expect

    page.goto(f"{stack.url}/assets/claims/{stage}?view=partitions&partition={day}")
    row = page.locator("[class*=assetListRow]", has_text=day)
    dot = row.locator("div[style*='border-radius: 100%']")
    expect(dot).to_have_attribute("style", re.compile("green"), timeout=RUN_MS)
    page.reload()  # the list follows by itself, the day beside it does not
    expect(page.get_by_text("Materialized", exact=True)).to_be_visible()


def test_the_graph_shows_the_journey_in_order(page: Any, stack: Stack, shoot: Shoot) -> None:
    page.set_viewport_size({"width": 1760, "height": 700})
    page.goto(f"{stack.url}/locations/ml_assets/asset-groups/claims/lineage")

    def left(stage: str) -> float:
        node = page.locator("foreignObject", has=page.get_by_text(stage, exact=True))
        node.wait_for()
        return float(node.bounding_box()["x"])

    journey = ["features", "training_set", "model", "champion", "predictions", "monitoring"]
    places = {stage: left(stage) for stage in ["raw", "quarantine", "extraction", *journey]}
    page.add_style_tag(content="[class*=SVGViewport_zoomSlider], nav {visibility: hidden}")
    shoot(page, "graph")

    assert max(places[each] for each in ("raw", "quarantine", "extraction")) < places["features"]
    assert sorted(journey, key=places.__getitem__) == journey


def test_a_person_materialises_a_day_and_sees_it_green(
    page: Any, stack: Stack, shoot: Shoot
) -> None:
    open_asset(page, stack, "predictions", "partitions")
    materialise(page, stack.unscored_day, "Launch 1 run", shoot)
    see_green(page, stack, "predictions", stack.unscored_day)
    shoot(page, "materialised")

    facts = page.locator("table").first.inner_text()
    assert re.search(r"expected_positives\s+\d+", facts)
    assert re.search(r"champion_version\s+1\b", facts)


def test_a_backfill_of_two_days_completes(page: Any, stack: Stack, shoot: Shoot) -> None:
    from playwright.sync_api import expect

    first, last = stack.unscored_days
    open_asset(page, stack, "predictions", "partitions")
    materialise(page, f"[{first}...{last}]", "Launch backfill", shoot)

    page.goto(f"{stack.url}/runs?view=backfills")
    row = page.locator("[class*=VirtualizedTable_row]", has_text="2 partitions")
    expect(row.get_by_text("Success", exact=True)).to_be_visible(timeout=RUN_MS)
    shoot(page, "backfill")
    for day in stack.unscored_days:
        see_green(page, stack, "predictions", day)


def test_a_failed_check_tells_its_reason_and_its_remedy(
    page: Any, stack: Stack, shoot: Shoot
) -> None:
    from playwright.sync_api import expect

    open_asset(page, stack, "raw", "checks&checkDetail=bad_share_within_limit")
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    reason = page.get_by_text("of the rows break the contract").first
    expect(reason).to_contain_text(stack.bad_day)
    expect(reason).to_contain_text("marital_status = 'Z'")
    expect(page.get_by_text("Look at the rows by").first).to_contain_text(
        "ml-assets quarantine show"
    )
    shoot(page, "failed_check")


def test_the_columns_of_a_table_are_explained(page: Any, stack: Stack, shoot: Shoot) -> None:
    from playwright.sync_api import expect

    open_asset(page, stack, "raw")
    row = page.get_by_role("row", name="claim_status")
    expect(row).to_contain_text("Outcome: 1 claimed, 0 did not, missing until known")
    shoot(page, "columns")


def test_a_preview_shows_rows(page: Any, stack: Stack, shoot: Shoot) -> None:
    from playwright.sync_api import expect

    page.goto(f"{stack.url}/assets/claims/predictions?view=partitions&partition={stack.yesterday}")
    page.get_by_role("row", name="preview").get_by_text("[Show Markdown]").click()
    table = page.get_by_role("dialog").locator("table")
    expect(table).to_contain_text("application_id")
    expect(table.locator("tbody tr")).to_have_count(5)
    shoot(page, "preview")


def test_the_plots_of_a_model_show(page: Any, stack: Stack, shoot: Shoot) -> None:
    open_asset(page, stack, "model", "events")
    page.get_by_role("row", name="reliability").get_by_text("[Show Markdown]").click()
    plot = page.get_by_role("dialog").get_by_role("img", name="plot")
    plot.wait_for()
    page.wait_for_function("image => image.naturalWidth > 300", arg=plot.element_handle())
    shoot(page, "plot")


def test_every_schedule_and_sensor_is_running(page: Any, stack: Stack, shoot: Shoot) -> None:
    from playwright.sync_api import expect

    environment = load_environment("dev", environ={})
    defined = build_definitions(environment)
    names = {each.name for each in [*(defined.schedules or []), *(defined.sensors or [])]}
    assert {"claims_scoring_daily", "claims_new_data"} <= names

    page.goto(f"{stack.url}/automation")
    for name in sorted(names):
        row = page.locator("[class*=ListItem_listItem__]", has=page.get_by_text(name, exact=True))
        expect(row.locator("label[class*=formatSwitch] input")).to_be_checked()
    shoot(page, "automation")


@pytest.mark.parametrize("stage", ["model_card", "monitoring"])
def test_a_page_for_people_opens_from_its_link_and_reads_well(
    chromium: Any, stack: Stack, shoot: Shoot, stage: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # Axe is injected as a script, which the page's own policy rightly forbids.
    context = chromium.new_context(viewport=DESKTOP, bypass_csp=True)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    open_asset(page, stack, stage)
    with context.expect_page() as opened:
        page.get_by_role("link", name=f"{stack.pages_url}/claims/").first.click()
    report = opened.value
    report.wait_for_load_state()
    asked: list[str] = []
    report.on("request", lambda request: asked.append(request.url))
    report.reload()
    assert [url for url in asked if not url.startswith(stack.pages_url)] == []

    for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        report.set_viewport_size(size)
        shoot(report, f"{stage}_{name}", full_page=True)
        found = Axe().run(report).response["violations"]
        grave = [each for each in found if each["impact"] in ("serious", "critical")]
        assert not grave, "\n".join(
            f"{each['id']}: {each['help']}: {[node['html'] for node in each['nodes'][:3]]}"
            for each in grave
        )
        assert report.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert report.evaluate(_OVERLAPS) == []
    context.close()


# Pairs of texts that lie upon one another, by the boxes that the browser gave them.
_OVERLAPS = """() => {
  const boxes = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, text = node.textContent.trim();
    if (!text || !node.parentElement.checkVisibility()) continue;
    // For ears alone: clipped away.
    let around = node.parentElement;
    while (around && getComputedStyle(around).clipPath === 'none') around = around.parentElement;
    if (around) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) boxes.push([text.slice(0, 40), box]);
  }
  const found = [];
  boxes.forEach(([text, a], i) => boxes.slice(i + 1).forEach(([other, b]) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    // Lines of text may touch; they are read until a third of their height is covered.
    if (wide > 3 && high > Math.min(a.height, b.height) / 3) found.push(`${text} | ${other}`);
  }));
  return found.slice(0, 10);
}"""
