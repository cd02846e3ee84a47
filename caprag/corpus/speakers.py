"""Says whether the word before a colon, or in brackets at a line's beginning, surely names a speaker.

A name has at most four Han characters (each side of a dot), eight kana, or three capitalised Latin words, and holds no
word that says what follows the colon. Knows a small table of such words, not who speaks: where it is in doubt, it says
no.
"""

from __future__ import annotations

import functools
import re

from caprag.text import match_form

_HAN = r"\u3400-\u9fff\uf900-\ufaff"
_LATIN_WORD = r"[A-Z\u00c0-\u00de][\w.'’\-]{0,19}"
NAME = (
    rf"(?:[{_HAN}]{{1,4}}(?:[·・][{_HAN}]{{1,4}})?\s?[A-Za-z0-9]{{0,2}}|[\u30a0-\u30ff]{{2,8}}"
    rf"|{_LATIN_WORD}(?: (?:{_LATIN_WORD}|\d{{1,3}})){{0,2}})"
)
"""Pattern of what may be a name."""

_NAME = re.compile(NAME)
# Words of these characters are phrases, and these words at the end say that something follows.
_PHRASE = "不沒是的了著有在很就也都還這那哪什怎麼嗎吧呢啊因為所但其或與及又再才只把被讓"
_LAST = "說話道問答講喊叫寫想曰稱聽看罵吼唱第線綫費率類版區號站額量價"
_WORDS = """
告訴 子云 話齋 表示 指出 提醒 強調 建議 宣布 回應 回覆 解釋 補充 介紹 報導 報道 聲明 發現 證明 透露 認定 相信 希望 決定
記得 請看 例如 比如 譬如 諸如 包括 以下 如下 如上 以上 如果 可以 可能 應該 必須 總之 總結 首先 其次 最後 然後
另外 此外 因此 於是 同時 時間 時刻 日期 今天 明天 昨天 現在 地點 地方 地址 位置 電話 手機 傳真 網址 網站 信箱
郵件 價格 價錢 售價 定價 原價 特價 費用 票價 金額 總計 合計 共計 小計 數量 人數 比分 分數 得分 比數 氣溫 溫度
天氣 注意 重點 要點 關鍵 重要 備註 註解 附註 附錄 提示 警告 公告 通知 快訊 新聞 更新 說明 須知 規則 規定 條件
限制 資格 結果 結論 結語 前言 原因 理由 目的 目標 意思 問題 題目 答案 解答 方法 方式 步驟 流程 過程 用途 功能
特色 特點 優點 缺點 優惠 主題 標題 內容 摘要 簡介 作者 出處 來源 資料 參考 出版 材料 食材 作法 做法 配料 名稱
姓名 名字 性別 年齡 生日 身高 體重 職業 職稱 單位 編號 代號 密碼 帳號 類型 種類 類別 分類 等級 狀態 型號 版本
尺寸 大小 顏色 長度 高度 重量 面積 範圍 格式 範例 舉例 例子 例句 圖片 圖表 圖說 表格 章節 附件 連結 心得 感想
評語 成語 俗話 諺語 古人 常言 口號 標語 事實 真相 秘訣 訣竅 好處 壞處 差別 區別 關係 影響 任務 行程 路線 口味
開始 結束 完成 成功 失敗
"""
_WHOLE = frozenset("註注例圖表附云詩題解按計共即")
_LATIN_WORDS = """
note notes nb time date place where when who what why how example examples warning caution tip tips hint re subject
step part chapter section figure fig table total result results summary answer question source sources name title
email mail tel phone fax url http https www isbn id error version model price update today tomorrow yesterday
remember important conclusion reason problem solution address location monday tuesday wednesday thursday friday
saturday sunday day week ps pps said says he she they it this that these those and but or so if then
"""
_LATIN = frozenset(_LATIN_WORDS.split())


@functools.cache
def _tables() -> tuple[re.Pattern[str], frozenset[str]]:
    """Return what no name holds, and what is none, all variants of a character folded."""
    phrase, last, words = match_form(_PHRASE), match_form(_LAST), map(match_form, _WORDS.split())
    return re.compile(f"[{phrase}]|[{last}]$|{'|'.join(words)}"), frozenset(map(match_form, _WHOLE))


@functools.lru_cache(1 << 14)
def is_speaker(name: str, *, bare: bool = False) -> bool:
    """Say whether a word surely names a speaker.

    Parameters
    ----------
    name
        The word in its written form, without brackets and colon.
    bare
        Whether no colon follows, so that one Han character or a single letter is not enough.

    Examples
    --------
    >>> [is_speaker(name) for name in ("小明", "路人A", "Speaker 1", "我告訴你", "时间", "Step 1", "一共三種東西")]
    [True, True, True, False, False, False, False]
    """
    name = name.strip()
    if not _NAME.fullmatch(name) or (bare and len(name) < 2):
        return False
    if name[0] < "\u2000":
        words = [word.strip(".'’-").lower() for word in name.split()]
        # What is all capitals is an abbreviation as likely as a name.
        return not (_LATIN.intersection(words) or (name.isupper() and 1 < len(words[0]) < 6))
    inner, whole = _tables()
    form = match_form(name)
    return not inner.search(form) and form not in whole
