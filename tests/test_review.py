"""The page of a run: what it holds, and what a person does with it in a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from caprag.errors import CapragError
from caprag.review import ReviewRow, read_results, write_page
from caprag.review.page import differences

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")


def row(number: int, **more: Any) -> dict[str, Any]:
    read, text = f"第{number}句閒玩笑", f"第{number}句開玩笑"
    return {
        "image": f"圖 {number}.png", "text": text if number % 2 else read, "read": read, "snapped": bool(number % 2),
        "sentence_id": number if number % 2 else None, "confidence": 0.5 + (number * 37 % 100) / 200,
        "hypotheses": [{"text": read, "logprob": -0.5}], **more,
    }  # fmt: skip


def results(folder: Path, count: int, **more: Any) -> Path:
    path = folder / "captions.jsonl"
    path.write_text("".join(json.dumps(row(n, **more), ensure_ascii=False) + "\n" for n in range(count)), "utf-8")
    return path


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r"const DATA = (.*);\n", page.read_text(encoding="utf-8"))
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


def test_a_page_holds_what_the_results_say(tmp_path: Path) -> None:
    path = results(tmp_path, 3, considered=["第1句開玩笑", "</script><b>"], shares={"edits": -1.234, "story": 5.0})
    rows = read_results(path, pictures=tmp_path / "a b", truths={"圖 1.png": "第1句開玩笑"})
    assert rows[1] == ReviewRow(
        "圖 1.png", "第1句閒玩笑", "第1句開玩笑", True, 0.685, tmp_path / "a b" / "圖 1.png", "第1句開玩笑",
        ("第1句開玩笑", "</script><b>"), {"edits": -1.234, "story": 5.0},
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    write_page(rows, tmp_path / "out" / "page.html", title="一部電影")
    text = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 1
    found = data_of(tmp_path / "out" / "page.html")
    assert found["title"] == "一部電影"
    shown = found["rows"][1]
    assert shown["picture"] == "../a%20b/%E5%9C%96%201.png"
    assert shown["parts"] == [["equal", "第1句", "第1句"], ["replace", "閒", "開"], ["equal", "玩笑", "玩笑"]]
    assert (shown["right"], shown["shares"]) == (True, {"edits": -1.23, "story": 5.0})
    assert "right" not in found["rows"][0]


def test_pictures_can_be_put_into_the_page(tmp_path: Path) -> None:
    Image.new("RGB", (1280, 720), (9, 9, 9)).save(tmp_path / "圖 0.png")
    write_page(read_results(results(tmp_path, 1), pictures=tmp_path), tmp_path / "page.html", embed=True)
    assert data_of(tmp_path / "page.html")["rows"][0]["picture"].startswith("data:image/jpeg;base64,/9j/")
    assert (tmp_path / "page.html").stat().st_size < 60_000


def test_differences_make_up_both_texts() -> None:
    for read, text in (("太稠了鍋鐘", "太稠了鍋鏟"), ("", "好"), ("好", ""), ("一二三", "二三四"), ("同", "同")):
        parts = differences(read, text)
        assert ("".join(p[1] for p in parts), "".join(p[2] for p in parts)) == (read, text)
        assert all((kind == "equal") == (one == two) for kind, one, two in parts)


@pytest.mark.parametrize(("content", "line"), [('{"image": "a"}\n', 1), ("\n[1]\n", 2), ('{"x', 1)])
def test_what_is_no_result_is_named(tmp_path: Path, content: str, line: int) -> None:
    (tmp_path / "r.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(CapragError, match=rf"r\.jsonl, line {line}: is no result of caprag read or snap"):
        read_results(tmp_path / "r.jsonl")
    with pytest.raises(CapragError, match=r"none\.jsonl: can't be read"):
        read_results(tmp_path / "none.jsonl")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("no browser: chromium and chromium-driver are not installed (apt-get install them)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="the dev extra is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1300,900", "--disable-dev-shm-usage",
    ):  # fmt: skip
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


def test_five_thousand_captions_in_a_browser(browser: Any, tmp_path: Path) -> None:
    """By the keyboard alone: go, find, mark right, type, save; what is drawn at a time stays little."""
    import time

    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    count = 5000
    for number in range(8):
        Image.new("RGB", (640, 360), (30 * number, 60, 90)).save(tmp_path / f"圖 {number}.png")
    path = results(tmp_path, count, considered=["最好的句子", "第二好的句子"], shares={"edits": -1.2, "story": 4.0})
    write_page(read_results(path, pictures=tmp_path), tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())

    def press(*keys: str) -> None:
        browser.switch_to.active_element.send_keys(*keys)

    def chosen() -> Any:
        return browser.find_element(By.CSS_SELECTOR, ".row.chosen")

    def status() -> str:
        return str(browser.find_element(By.ID, "count").text)

    assert status() == f"{count} of {count} captions, 0 corrected"
    order = sorted(range(count), key=lambda n: (round(row(n)["confidence"], 4), n))
    assert chosen().get_attribute("id") == f"row-{order[0]}"
    begin = time.perf_counter()
    for _ in range(30):
        press(Keys.ARROW_DOWN)
    press(Keys.END)
    press(Keys.HOME)
    assert time.perf_counter() - begin < 30
    assert len(browser.find_elements(By.CSS_SELECTOR, ".row")) < 40
    press("a")
    assert chosen().get_attribute("id") == f"row-{order[1]}"
    press("n")
    press(Keys.ARROW_DOWN)
    press(Keys.ENTER)
    browser.switch_to.active_element.send_keys(Keys.CONTROL, "a")
    press("我打的字", Keys.ENTER)
    press("u")
    press("r")
    press(Keys.ARROW_UP)
    press("u")
    assert status().endswith("3 corrected")
    press("/")
    press("第4321句")
    assert status().startswith(f"1 of {count}")
    press(Keys.ESCAPE)
    assert status().startswith(f"{count} of {count}")
    assert chosen().get_attribute("id") == "row-4321"
    press("r")
    assert status().endswith("4 corrected")
    press(Keys.HOME)
    browser.save_screenshot(str(tmp_path / "screen.png"))
    keep = Path(__file__).resolve().parent.parent / "build" / "review.png"
    keep.parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "screen.png", keep)
    with Image.open(keep) as screen:
        assert len(screen.convert("RGB").resize((200, 120)).getcolors(24_000) or ()) > 20
    press("s")
    saved = tmp_path / "corrections.jsonl"
    for _ in range(50):
        if saved.exists():
            break
        time.sleep(0.1)
    rows = [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()]
    by_key = {one["key"]: one["truth"] for one in rows}
    one, two, three = (row(number) for number in order[:3])
    second = "第二好的句子" if two["snapped"] else "最好的句子"
    expected = {
        one["image"]: one["text"], two["image"]: second, three["image"]: "我打的字", "圖 4321.png": row(4321)["read"],
    }  # fmt: skip
    assert by_key == expected
    browser.refresh()
    assert status().endswith("4 corrected")
