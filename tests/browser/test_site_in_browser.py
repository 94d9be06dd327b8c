"""The website from the disk and without a network: every page, the search, axe-core."""

import re
from pathlib import Path

import pytest
from site_samples import load_build, site_tree

pytest.importorskip("sphinx", reason="Sphinx is not installed; `make site` brings it")
pytest.importorskip("myst_nb", reason="myst-nb is not installed; `make site` brings it")
pytest.importorskip("furo", reason="furo is not installed; `make site` brings it")

# `npm install` in this folder, as its package.json says, brings axe-core; it is not in the project.
AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"
WIDTHS = {"wide": 1280, "narrow": 360}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = site_tree(tmp_path_factory.mktemp("project"))
    (folder / "outputs/smoke/page.html").write_text("<title>The model</title>", encoding="utf-8")
    return load_build().build(folder, "smoke").parent


def pages(site: Path) -> list[Path]:
    """All but the listings of source code, which are all alike, and the model's page."""
    found = {path for path in site.rglob("*.html") if "_modules" not in path.parts}
    listing = next(site.glob("_modules/**/*.html"))
    return sorted(found - {site / "page.html"} | {listing})


@pytest.mark.parametrize("width", WIDTHS)
def test_each_page_loads_nothing_from_outside_and_fits_the_window(opened, site, width) -> None:
    view = {"viewport": {"width": WIDTHS[width], "height": 800}, "offline": True}
    all_pages = pages(site)
    assert len(all_pages) > 60
    with opened(all_pages[0].as_uri(), **view) as seen:
        for path in all_pages:
            seen.page.goto(path.as_uri())
            assert seen.page.locator("h1").count() == 1, path
            assert seen.page.locator("img:not([alt])").count() == 0, path
            over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert seen.page.evaluate(over) <= 0, f"{path} scrolls sideways"
    assert seen.errors == []
    assert not [url for url in seen.requests if not url.startswith(("file:", "data:"))]


def test_a_notebook_shows_its_results_and_chinese_pages_say_so(opened, site) -> None:
    with opened((site / "notebooks/01_explore_data.html").as_uri(), offline=True) as seen:
        assert seen.page.get_by_text("one line").is_visible()
        assert seen.page.get_by_role("img", name="A red dot").count() == 1
        assert seen.page.locator("td strong", has_text="GPT").is_visible()
        wide = seen.page.locator("pre", has_text="one line")
        assert wide.get_attribute("tabindex") == "0"  # it scrolls sideways: keys must reach it
        seen.page.goto((site / "README.zh-CN.html").as_uri())
        assert seen.page.locator("html").get_attribute("lang") == "zh-CN"
        seen.page.goto((site / "notebooks/zh-CN/01_explore_data.html").as_uri())
        assert seen.page.get_by_text("印出的一行").is_visible()


@pytest.mark.parametrize("name", ["01_explore_data", "laboratory/look_inside", "report"])
def test_a_page_leads_to_the_same_page_in_the_other_language_and_back(opened, site, name) -> None:
    pair = [site / f"notebooks/{folder}{name}.html" for folder in ("", "zh-CN/")]
    with opened(pair[0].as_uri(), offline=True) as seen:
        for words, path, language in (("中文", pair[1], "zh-CN"), ("English", pair[0], "en")):
            link = seen.page.locator("article").get_by_role("link", name=words, exact=True)
            assert link.get_attribute("lang") == language  # it speaks the other language
            link.click()
            assert seen.page.url == path.as_uri()
            assert seen.page.locator("html").get_attribute("lang") == language
            title = seen.page.locator("h1").inner_text()
            first = seen.page.locator(".sidebar-tree .caption-text").first.text_content()
            for text in (title, first):
                assert bool(re.search("[\u4e00-\u9fff]", text)) == (language == "zh-CN"), text
    assert seen.errors == []


@pytest.mark.parametrize("words", ["词元", "注意力头", "GPT 困惑度"])
def test_the_search_finds_chinese_words_inside_of_sentences(opened, site, words) -> None:
    with opened((site / "notebooks/zh-CN/01_explore_data.html").as_uri(), offline=True) as seen:
        seen.page.locator("input[name=q]").fill(words)
        seen.page.keyboard.press("Enter")
        found = seen.page.locator('#search-results a[href*="notebooks/zh-CN/"]')
        found.first.wait_for()
        assert found.count() >= 3
    assert seen.errors == []


def test_the_search_and_the_models_page_work_from_the_disk(opened, site) -> None:
    with opened((site / "index.html").as_uri(), offline=True) as seen:
        seen.page.get_by_role("link", name="Open the trained model").click()
        assert seen.page.title() == "The model"
        seen.page.go_back()
        seen.page.locator("input[name=q]").fill("perplexity")
        seen.page.keyboard.press("Enter")
        seen.page.locator("#search-results a", has_text="Glossary").click()
        assert seen.page.url.split("?")[0] == (site / "docs/glossary.html").as_uri()
    assert seen.errors == []


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed; see package.json")
@pytest.mark.parametrize(("scheme", "width"), [("light", "wide"), ("dark", "narrow")])
def test_axe_finds_nothing_serious(opened, site, scheme, width) -> None:
    view = {"viewport": {"width": WIDTHS[width], "height": 800}, "color_scheme": scheme}
    with opened((site / "index.html").as_uri(), offline=True, **view) as seen:
        for path in pages(site):
            seen.page.goto(path.as_uri())
            seen.page.evaluate(AXE.read_text(encoding="utf-8"))
            result = seen.page.evaluate("axe.run(document, {preload: false})")
            wrong = [(v["id"], v["nodes"][0]["html"]) for v in result["violations"]
                     if v["impact"] != "minor"]  # fmt: skip
            assert not wrong, path
