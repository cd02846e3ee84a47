"""Words that stand on screens beside captions: channels, signs, credits, second languages. All invented."""

from __future__ import annotations

LOGOS = (
    "山海台", "晨星HD", "綠洲影視", "東港電視", "NOVA 7", "河岸新聞", "北辰衛視", "好日子頻道", "LUMEN TV", "青空动画",
    "CH 26", "松果影音", "藍鯨 LIVE", "島嶼劇場", "云端剧场", "白鷺",
)  # fmt: skip
"""Names of channels and shows, for the corners."""

SIGNS = (
    "小心地滑", "出口", "豆漿 燒餅 油條", "平價五金行", "請勿停車", "往月台", "三號倉庫", "自助洗衣", "本日公休",
    "歡迎光臨", "理髮廳", "招租", "OPEN", "CAFE 1987", "中山路二段", "工地危險", "售票處", "非請勿入", "牛肉麵",
    "仁愛診所", "水電工程", "停车场", "禁止吸烟", "便利商店", "圖書館",
)  # fmt: skip
"""Writings within the scene."""

CREDITS = (
    "導演 林書河", "編劇 陳以安", "攝影 高岳", "剪輯 許念慈", "音樂 方遠", "美術 朱小禾", "監製 何家榮", "主演 沈映雪",
    "原著 宋知秋", "錄音 田野", "服裝 葉青", "第三集 渡口", "第十二話 夏天的尾巴", "片名 風起之前", "片尾曲 慢船",
    "导演 周行", "摄影 贺兰", "作詞 江晚", "協力 東港漁會", "旁白 古月",
)  # fmt: skip
"""Lines of opening and closing credits."""

SECOND_LANGUAGE = (
    "I thought you had already left.", "Where did you put the key?", "It will be over before you know it.",
    "Don't wait for me tonight.", "She never told anyone about it.", "Is this the last train?",
    "We should have turned left there.", "You haven't changed a bit.", "What are you going to do now?",
    "Nothing ever happens in this town.", "Tell him I said hello.", "That's not what I meant.",
    "Give me five more minutes.", "I can hear the rain on the roof.", "Who left the window open?",
    "もう帰ったかと思った", "鍵はどこに置いたの", "すぐに終わるから待ってて", "誰にも言わないでください",
    "これが最後の電車ですか", "昨日のことは忘れよう", "なにも変わっていないね", "明日もここで会える?",
    "そんなつもりじゃなかった", "あと五分だけ",
    "벌써 간 줄 알았어", "열쇠는 어디에 뒀어?", "금방 끝날 거야", "아무에게도 말하지 마", "내일 여기서 만나자",
    "그런 뜻이 아니었어",
)  # fmt: skip
"""What a second line in another language says."""
