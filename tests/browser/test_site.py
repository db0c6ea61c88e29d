"""A leaderboard in a browser, from disk: filters, order, the address, and the way down to a record."""

from __future__ import annotations

import pytest

from jobs import cli
from tests.helpers.browsing import console_errors, until_true
from tests.helpers.labs import lab_store, metrics_of

pytestmark = pytest.mark.slow
OTHER = ("recall", "echo", "recall-001", 1)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page's, of the leaderboard of two labs."""
    folder = tmp_path_factory.mktemp("labs")
    lab_store(folder / "ann", ["echo", "infinity_rope"], ["recall", "hard"])
    lab_store(folder / "bob", ["echo", "longlive"], otherwise={OTHER: {"world.leakage": 50.125}})
    assert cli.main(["report", "--site", str(folder / "ann"), str(folder / "bob"), "--output", str(folder / "site")]) == 0
    return (folder / "site" / "index.html").as_uri()


def shown(driver) -> list[list[str]]:
    """Texts of the cells of the leaderboard that are in sight, head first."""
    rows = "[...document.querySelectorAll('#leaderboard tr')].filter(row => !row.hidden)"
    return driver.execute_script(f"return {rows}.map(row => [...row.cells].filter(c => !c.hidden).map(c => c.innerText))")


def choose(driver, name: str, value: str) -> None:
    driver.execute_script(
        "const one = document.getElementById(arguments[0]); one.value = arguments[1]; one.dispatchEvent(new Event('input'))", name, value
    )


def test_filters_order_and_the_way_down_to_a_record(browser, address):
    browser.get(address)
    head, *rows = shown(browser)
    assert [text.split("\n")[:2] for text in head[3:]] == [["Hard cut", "recall fidelity"], ["Scene recall", "recall fidelity"]]
    assert len(rows) == 4, "methods by lab, with one score over all tasks"
    choose(browser, "task", "recall")
    choose(browser, "score", "")
    assert [text.split("\n")[1] for text in shown(browser)[0][3:]] == ["recall fidelity", "leakage ↓", "text alignment"]
    choose(browser, "lab", "bob")
    assert [row[2] for row in shown(browser)[1:]] == ["bob ‡", "bob"]
    choose(browser, "method", "LONG live")
    choose(browser, "lab", "")
    assert [row[0] for row in shown(browser)[1:]] == ["LongLive"]
    choose(browser, "method", "")
    for again in (1, -1):
        browser.execute_script("document.querySelectorAll('#leaderboard th[data-task=recall] .sort')[1].click()")
        leakage = [float(row[4].split()[0]) for row in shown(browser)[1:]]
        assert leakage == sorted(leakage, reverse=again < 0), "less is better, so least first"
    choose(browser, "lab", "bob")
    browser.get("about:blank")
    browser.get(f"{address}#task=recall&lab=bob&score=")
    assert len(shown(browser)) == 3 and len(shown(browser)[0]) == 6, "the address holds the filters"
    browser.execute_script("document.querySelector('#disputes tbody td a:last-of-type').click()")
    until_true(browser, "return location.pathname.includes('/labs/bob/')")
    line = browser.execute_script(
        "const row = document.querySelector('tr:target'); row.querySelector('summary').click(); return row.innerText"
    )
    assert "recall-001" in line and '"world.leakage": 50.125' in line and str(metrics_of(OTHER)["world.recall_fidelity"]) in line
    assert console_errors(browser) == []
