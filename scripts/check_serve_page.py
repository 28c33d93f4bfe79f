"""The page of a server in a browser: ADDRESS CHROMIUM [SCREENSHOTS]."""

import re
import sys
import tempfile
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

address, chromium = sys.argv[1:3]
screenshots = sys.argv[3] if len(sys.argv) > 3 else ""
violations = 0


def axe(page, what):
    global violations
    found = Axe().run(page).response["violations"]
    for one in found:
        print(f"axe, {what}: {one['id']}: {one['help']}")
        for node in one["nodes"][:3]:
            print("   ", node["html"][:160])
    violations += len(found)


def shot(page, name):
    if screenshots:
        page.screenshot(path=f"{screenshots}/{name}.png")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1000, "height": 800}, bypass_csp=True)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.goto(address)
    expect(page.locator("#model")).to_contain_text("emoji", timeout=60000)
    axe(page, "make")

    def made(count):
        expect(page.locator("#results img")).to_have_count(count, timeout=120000)
        expect(page.locator("#go")).to_be_enabled(timeout=120000)

    page.fill("#prompt", "red heart, noto style")
    page.fill("#seed", "3")
    start = time.time()
    page.click("#go")
    made(1)
    print(f"a picture: {time.time() - start:.2f} s after the click")

    page.click("#trace")
    expect(page.locator("#view")).to_be_enabled(timeout=120000)
    page.select_option("#view", "tokens")
    page.locator("#scrub").press("Home")
    for _ in range(12):
        page.locator("#scrub").press("ArrowRight")
    expect(page.locator("#scrub-value")).to_have_text("12 of 25")
    for view in ["entropy", "changed", "picture", "tokens"]:
        page.select_option("#view", view)
    page.locator("#words button").nth(1).click()
    axe(page, "inside")
    shot(page, "serve-make")
    print("scrubbed, entropy, changed, words")

    page.click("#paint")
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + box["height"] * 0.7)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + box["height"] * 0.7, steps=20)
    page.mouse.up()
    expect(page.locator("#selected")).to_have_text(re.compile(r"^\d+ tokens chosen"))
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    page.fill("#prompt", "blue heart, noto style")
    page.click("#redo")
    made(1)
    print("painted and redrawn")

    with page.expect_download() as download:
        page.click("#download")
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        download.value.save_as(file.name)
        page.fill("#prompt", "")
        page.set_input_files("#settings-file", file.name)
        expect(page.locator("#prompt")).to_have_value("blue heart, noto style", timeout=20000)
        page.fill("#prompt", "")
        data = page.evaluate_handle(
            """async (bytes) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], 'a.png', { type: 'image/png' }));
              return data;
            }""",
            list(open(file.name, "rb").read()),
        )
        page.dispatch_event("body", "drop", {"dataTransfer": data})
        expect(page.locator("#prompt")).to_have_value("blue heart, noto style", timeout=20000)
    print("a PNG brings its settings back, chosen and dropped")

    page.click("#tab-gallery")
    expect(page.locator("#gallery-list img").first).to_be_visible(timeout=20000)
    page.locator("#gallery-list button").first.click()
    axe(page, "gallery")
    page.click("#gallery-but-seed")
    expect(page.locator("#make")).to_be_visible()

    page.click("#tab-compare")
    page.fill("#row-values", "1, 2")
    page.fill("#column-values", "0, 1")
    page.click("#compare button[type=submit]")
    expect(page.locator("#compare-table img")).to_have_count(4, timeout=120000)
    axe(page, "compare")
    print("compared")

    page.click("#tab-runs")
    expect(page.locator("#last-values")).to_contain_text("step 400", timeout=20000)
    expect(page.locator("#sheet")).to_be_visible(timeout=20000)
    page.locator("#smoothing").press("End")
    page.check("#log-axis")
    axe(page, "runs")
    shot(page, "serve-runs")
    print("read the monitor")

    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 320, "height": 640})
    for tab in ["make", "gallery", "compare", "runs"]:
        page.click(f"#tab-{tab}")
        axe(page, f"{tab}, dark, 320 px")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 320, f"{tab} is {width} px wide"
    browser.close()

    # The page's own rules hold without the checker's script.
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page()
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.goto(address)
    expect(page.locator("#model")).to_contain_text("emoji", timeout=60000)
    page.fill("#prompt", "red heart")
    page.fill("#n", "5")
    page.click("#go")
    page.click("#cancel")
    expect(page.locator("#caption")).to_have_text("cancelled", timeout=60000)
    print("cancelled")
    browser.close()

assert not problems, problems
assert violations == 0, f"{violations} violations"
print("the page: no errors, no violations of axe")
