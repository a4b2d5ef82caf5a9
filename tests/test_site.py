"""The site: what its generators read from the code, its glossary, its checker, and two chapters built and looked at."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter

import nbformat
import pytest

from compresslab.compare.published import published
from compresslab.course.chapters import CHAPTERS, load_chapter
from docs import methods, pages
from docs.__main__ import build, replace
from docs.check import problems

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SPHINX = all(importlib.util.find_spec(name) for name in ("sphinx", "myst_nb", "furo", "sphinx-mathjax-offline"))

# -- the table of methods --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    return {(m.family, m.name): m for family in methods.FAMILIES for m in methods.methods(family)}


def test_uses_follows_imports_and_not_words():
    code = """
import compresslab.pruning as p
from compresslab import quantization
from compresslab.core.store import save as keep
from compresslab.lowrank import svd
from other import prune_snip
p.prune_magnitude(keep, quantization.gptq); svd.truncated_svd; "hybrid.run_order"; local = prune_wanda = 1
"""
    expected = {("pruning", "prune_magnitude"), ("core", "save"), ("quantization", "gptq"), ("lowrank", "truncated_svd")}
    assert methods.uses(code) == expected
    assert methods.uses("import compresslab.sharing.basis\ncompresslab.sharing.HashedCode") == {("sharing", "HashedCode")}


@pytest.mark.parametrize("text, expected", [
    ("core.save", ("core", "save")), ("compresslab.core.store.save", ("core", "save")), ("quantization.Grid", ("core", "Grid")),
    ("save", None), ("core", None), ("core.nothing", None), ("core.nowhere.save", None), ("torch.save", None), ("core.a.b.save", None),
])  # fmt: skip
def test_find(text, expected):
    assert methods.find(text) == expected


@pytest.mark.parametrize("doc, expected", [
    (None, None), ("Prune.", None), ("Prune.\n\nSource:\n    A. B, 2015.\n\nMore.", "A. B, 2015."),
    ("Prune.\n\nSource: A. B,\n2015.\nDiffers: not.", "A. B, 2015."), ("Source: A, 2015. Differs: not.\nExample:\n    x", "A, 2015."),
    ("Source: A, 2015\n    Source code: there.\nExample (a second):", "A, 2015 Source code: there."),
])  # fmt: skip
def test_source_is_the_paper_alone(doc, expected):
    assert methods.source(doc) == expected


def test_every_public_name_of_a_family_has_one_row(table):
    for family in methods.FAMILIES:
        for name in methods.public(family):
            home = methods.home(family, name)
            assert home in table or home[0] in ("core", "models", "data"), home
    assert {family for family, _ in table} == set(methods.FAMILIES)
    assert set(methods.FAMILIES.values()) | {"00"} == set(CHAPTERS)
    with pytest.raises(ValueError, match="family must be one of pruning, .*, got 'core'"):
        methods.methods("core")


def test_rows_say_what_is_known_of_them(table):
    row = table["lowrank", "break_even_rank"]
    assert row.source is None and "5.2" in row.written and "svd_layers" in " ".join(row.tests)
    row = table["deploy", "export_onnx"]
    assert "11" in row.chapters and "test_export" in row.tests and row.summary.endswith(".")
    assert table["pruning", "prune_magnitude"].source.startswith("Han et al., NeurIPS 2015")
    assert "01" in table["pruning", "trace_channels"].chapters
    assert table["deploy", "predict_milliseconds"].source is None and "Roofline" in table["deploy", "predict_milliseconds"].file_source


def test_every_method_has_a_test(table):
    assert [key for key, m in table.items() if m.source and not m.tests] == []


# Public names without a paper that no test file names. The classes are what functions with tests return; the functions are parts that
# are tested through those that call them.
ONLY_THROUGH_OTHERS = {
    "pruning.ChannelGraph", "pruning.ChannelGroup", "quantization.fake_quantize_ste", "quantization.Rescale",
    "quantization.AddConstants", "quantization.IntegerNetwork", "quantization.AWQSearch", "compact.ExitReport",
    "compact.SearchResult", "compact.StagedNet", "lowrank.BlockTerm", "lowrank.CPResult", "lowrank.EVBMF", "lowrank.Pixels",
    "lowrank.Tucker", "sharing.TableCode", "hybrid.scale_to_buckets", "compare.ChangedAnswers", "compare.Conflict",
    "compare.Moment", "compare.Original", "compare.ReliabilityBin", "compare.measure_file", "sequence.Block",
    "sequence.Speculation", "sequence.Text", "sequence.mask_matrices_", "classical.FoldDifference",
    "classical.OneTreeClassifier", "classical.PruningPath", "classical.fitted_teacher", "classical.scale_gamma",
    "classical.soft_training_set", "deploy.Agreement", "deploy.SparseRow", "deploy.Arena", "deploy.Fit", "deploy.MemoryReport",
    "deploy.usable_cores",
}  # fmt: skip


def test_names_without_a_test_of_their_own_are_known(table):
    assert {f"{m.family}.{m.name}" for m in table.values() if not m.tests} - ONLY_THROUGH_OTHERS == set()


def test_what_is_missing_is_visible():
    row = pages.method_row(methods.Method("lowrank", "svd_linear", "", None, None, (), ("05",), (), (), ()), ["05"])
    assert row[1:] == ["--", "(:doc:`05 </chapters/05_low_rank_decomposition>`)", "--", "--"]
    row = pages.method_row(methods.Method("lowrank", "svd_linear", "", "S. *Han*", "T. File", ("05",), (), ("5.1",), ("6.1",), ("test_a",)), ["05"])
    assert pages.paper(methods.Method("lowrank", "svd_linear", "", None, "T. File", *[()] * 5)) == "*its file:* T. File"
    assert row[1] == r"S. \*Han\*" and row[3] == ":ref:`5.1 <exercise-5-1>` ✏, 6.1" and row[4] == "``a``"


def test_applied_ends_with_the_next_exercise_or_heading(monkeypatch):
    text = """from compresslab import pruning
# ## One
pruning.prune_magnitude
# {{exercise 1.1}}
pruning.prune_snip
# {{exercise 1.2}}
pruning.prune_obd
# ### Two
pruning.prune_wanda
"""
    monkeypatch.setattr(methods, "chapter_source", lambda number: text)
    assert methods._applied.__wrapped__("01") == {("pruning", "prune_snip"): ["1.1"], ("pruning", "prune_obd"): ["1.2"]}


# -- the glossary and the published record -----------------------------------------------------------------------

TERMS = pages.glossary()


def test_glossary_is_sorted_and_has_every_term_once():
    english = [term.english.casefold() for term in TERMS]
    assert english == sorted(english) and len(english) > 120
    names = Counter(name.casefold() for term in TERMS for name in (term.english, term.chinese))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.english)
def test_a_term_is_whole_and_its_chapter_speaks_of_it(term):
    assert re.search("[\u4e00-\u9fff]", term.chinese) and not re.search("[\u4e00-\u9fff]", term.english + term.definition)
    assert term.definition[0].isupper() and term.definition.endswith(".") and term.definition.count(". ") == 0
    text = methods.chapter_source(term.chapter).casefold()
    words = [word for word in re.findall(r"\w+", term.english.casefold()) if len(word) > 3] or [term.english.casefold()]
    assert [word for word in words if word[:5] not in text] == []


def test_both_names_of_a_term_are_targets_and_its_chapter_a_link():
    page = pages.glossary_page([pages.Term("rank", "秩", "A number_.", "05")], ["05"])
    assert "   rank\n   秩\n      A number\\_. *Chapter* :doc:`05 </chapters/05_low_rank_decomposition>`.\n" in page


def test_published_page_has_every_row_with_its_source():
    page = pages.published_page(["08"])
    assert page.count("   * - ") == 1 + len(published())
    assert all(pages.escape(row.source) in page and pages.escape(row.method) in page for row in published())


# -- the pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", pages.executed())
def test_chapter_page_has_targets_and_folded_solutions(number):
    book = nbformat.reads(pages.chapter_page(number), as_version=4)
    text = "\n".join(cell.source for cell in book.cells)
    assert "### BEGIN SOLUTION" not in text and "### END SOLUTION" not in text
    assert [item.id for item in load_chapter(number).exercises if f"({pages.exercise_label(item.id)})=\n**Exercise {item.id} ·" not in text] == []
    folded = [cell for cell in book.cells if "hide-input" in cell.metadata.get("tags", ())]
    assert len(folded) >= len(load_chapter(number).exercises) and all(cell.source.strip() for cell in folded)


def test_unknown_chapters_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no chapter '77'"):
        pages.write_pages(tmp_path / "pages", ["77"])
    assert not (tmp_path / "pages").exists()


def test_every_public_name_is_documented_once():
    entries = Counter()
    for package in methods.PACKAGES:
        page = pages.package_page(package)
        entries.update((package, name) for name in re.findall(r"^\.\. (?:autofunction|autoclass|py:data):: (\w+)", page, re.M))
    assert entries == Counter({methods.home(package, name) for package in methods.PACKAGES for name in methods.public(package)})


def test_a_constant_is_found_in_the_file_that_sets_it():
    assert pages.defining_file("sequence", "VOCABULARY") == "compresslab.sequence.text"
    assert pages.defining_file("compact", "SearchResult") == "compresslab.core.evolution"


def test_a_cell_is_no_numbered_list():
    text = pages.table(("a", "b"), [["S. Han", "1."], ["", "x"]], (1, 2), "sortable")
    assert text == ".. list-table::\n   :header-rows: 1\n   :widths: 1 2\n   :class: sortable\n\n   * - \\ a\n     - \\ b\n" \
                   "   * - \\ S. Han\n     - \\ 1.\n   * - \n     - \\ x\n\n"  # fmt: skip


@pytest.mark.skipif(not SPHINX, reason="the extra `site` is not installed")
def test_docstrings_are_brought_into_form():
    from docs.links import _as_drawn, _with_sections, escape_text

    doc = ["One.", "Source: A,", "    2015.", "Differs: no.", "Example (a second):", "    >>> 1"]
    assert [*_with_sections(doc)] == ["One.", "", "*Source:* A,", "2015.", "", "*Differs:* no.", "", "Example:", "    >>> 1"]
    assert [*_as_drawn(["Text:", "", "    x -> y", "", "end"])] == ["Text:", "", "::", "", "        x -> y", "", "end"]
    lines = ["|w| of classes_, `a|b` and ``c_``", ":param k: K.", ".. math:: |x|", "", "    |y|", "", "|z|"]
    escape_text(None, "function", "", None, None, lines)
    assert lines == [r"\|w\| of classes\_, `a|b` and ``c_``", r":param k: \ K.", ".. math:: |x|", "", "    |y|", "", r"\|z\|"]


# -- the checker ---------------------------------------------------------------------------------------------------

GOOD = """<html><head><script src="a.js"></script></head><body><h1 id="top">A</h1><a href="#top">x</a> <a href="b.html#low">x</a>
<a href="https://example.org/gone">x</a> <p>It costs $5. <span class="math">$x$</span> <code>$x$</code> <img src="b.png"></p></body></html>"""


@pytest.fixture
def site(tmp_path):
    for name, text in {"a.html": GOOD, "b.html": '<p id="low">x</p>', "a.js": "", "b.png": "", "c.css": "p { color: red }"}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_good_site_has_no_problem(site):
    assert problems(site) == []


@pytest.mark.parametrize("extra, problem", [
    ('<a href="gone.html">x</a>', "dead link gone.html"), ('<a href="a.html#gone">x</a>', "dead link a.html#gone"),
    ('<a href="../../outside.html">x</a>', "dead link ../../outside.html"),
    ('<script src="https://cdn.org/x.js"></script>', "loaded from a network: https://cdn.org/x.js"),
    ('<img src="//cdn.org/x.png">', "loaded from a network: //cdn.org/x.png"),
    ('<link rel="stylesheet" href="http://cdn.org/x.css">', "loaded from a network: http://cdn.org/x.css"),
    ('<img src="gone.png">', "is not there: gone.png"),
    ("<p>so $x = 1$ here</p>", "not rendered: $x = 1$"), ("<p>{{exercise 1.1}}</p>", "not rendered: {{exercise"),
    ("<p>see :func:`save`</p>", "not rendered: :func:`"),
])  # fmt: skip
def test_every_problem_is_named_with_its_page(site, extra, problem):
    (site / "b.html").write_text('<p id="low">x</p>' + extra)
    assert problems(site) == [f"b.html: {problem}"]


def test_a_font_from_a_network_is_a_problem(site):
    (site / "c.css").write_text("@font-face { src: url('https://fonts.org/f.woff2') }")
    assert problems(site) == ["c.css: loaded from a network: https://fonts.org/f.woff2"]


def test_no_site_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="run `make site` first"):
        problems(tmp_path)


def test_only_a_site_is_replaced(tmp_path):
    made, folder = tmp_path / "made", tmp_path / "folder"
    made.mkdir()
    (made / "searchindex.js").write_text("new")
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something that is no site"):
        replace(folder, made)
    with pytest.raises(FileExistsError, match="holds something that is no site"):
        build(folder, ["00"], ["core"])
    assert (folder / "thesis.txt").read_text() == "mine"
    replace(tmp_path / "new", made)
    (made / "more.html").write_text("x")
    replace(tmp_path / "new", made)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"searchindex.js", "more.html"}


# -- two chapters, built -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if not SPHINX:
        pytest.skip("the extra `site` is not installed")
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "docs", str(folder), "--chapters", "00", "05", "--packages", "core", "lowrank"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=methods.ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_built_without_a_warning_and_nothing_is_wrong_with_it(built):
    assert problems(built) == []
    assert {path.stem for path in (built / "chapters").glob("*.html")} == {"00_start_here", "05_low_rank_decomposition"}
    assert (built / "search.html").exists() and (built / "searchindex.js").stat().st_size > 10_000


def test_chapters_stand_in_the_sidebar_in_order(built):
    sidebar = (built / "index.html").read_text().split('class="sidebar-tree"')[1]
    assert re.findall(r'href="chapters/(\d\d)_', sidebar)[:2] == ["00", "05"]


def test_code_and_terms_in_a_chapter_are_links(built):
    text = (built / "chapters" / "05_low_rank_decomposition.html").read_text()
    assert 'href="../reference/lowrank.html#compresslab.lowrank.ranks_for_budget"' in text
    assert 'href="../reference/glossary.html#term-low-rank-decomposition"' in text
    assert 'id="exercise-5-1"' in text and "Show one solution" in text


def test_code_in_the_reference_is_linked_across_packages(built):
    text = (built / "reference" / "lowrank.html").read_text()
    assert 'href="core.html#compresslab.core.' in text and "Return the extra representation" not in text


def test_the_reference_has_formulas_and_papers(built):
    text = (built / "reference" / "lowrank.html").read_text()
    assert 'id="compresslab.lowrank.truncated_svd"' in text and "Eckart" in text and 'class="math' in text


@pytest.fixture(scope="module")
def browser(built):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def test_formulas_are_drawn_without_a_network(built, browser):
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((built / "chapters" / "05_low_rank_decomposition.html").as_uri())
    page.wait_for_function("window.MathJax?.startup?.promise?.then(() => true)")
    drawn, wrong = page.locator("mjx-container").count(), page.locator("mjx-merror").count()
    assert drawn == page.locator(".math").count() > 50 and wrong == 0
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()


def test_the_published_record_is_sorted_and_filtered(built, browser):
    page = browser.new_page()
    page.goto((built / "reference" / "published.html").as_uri())
    heading = page.locator("th", has_text="Smaller")
    heading.click()
    heading.click()
    cells = page.locator("table.sortable tbody tr td:nth-child(7)").all_inner_texts()
    numbers = [float(cell) for cell in cells if cell.strip()]
    assert numbers == sorted((row.compression for row in published() if row.compression), reverse=True)
    assert not any(cell.strip() for cell in cells[len(numbers) :]) and heading.get_attribute("aria-sort") == "descending"
    page.locator("input.filter").fill("distillation resnet")
    rows = page.locator("table.sortable tbody tr:visible").all_inner_texts()
    assert 0 < len(rows) < len(cells) and all("distillation" in row and "resnet" in row.lower() for row in rows)
    page.close()
