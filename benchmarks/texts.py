"""Texts of many scripts, the same ones on every machine."""

from __future__ import annotations

import random

_SENTENCES = (
    "The lamp on the left isn't lit, and we'll need it by 7:45 pm.",
    "Das Gerät prüft die Größe der Öffnung, bevor es greift.",
    "L'été dernier, la caméra a filmé près de 1 250 images.",
    "¿Cuántas manzanas quedan en la caja de la señora Núñez?",
    "O robô não viu a xícara atrás da estação.",
    "Robotul a găsit șase chei și o înghețată.",
    "Żółta łódź płynie ku wyspie, choć wiatr słabnie.",
    "Příliš mnoho čísel: 3,14 a 2,718 – a ještě jedno.",
    "A gép öt perc múlva újraindul, ha kell.",
    "Işık söndü, çünkü şarj %5'in altına düştü.",
    "Хорошая камера видит ночью, но не сквозь туман.",
    "Робот шукає ключ, який лежить під столом.",
    "Το ρομπότ μετράει τα βήματα ως την πόρτα.",
    "הרובוט מחפש את המפתח מתחת לשולחן.",
    "يبحث الروبوت عن المفتاح تحت الطاولة، ثم يتوقف.",
    "ربات چراغ را روشن می‌کند و می‌پرسد: «کجا؟»",
    "रोबोट मेज़ के नीचे चाबी ढूँढ रहा है।",
    "রোবট টেবিলের নিচে চাবি খুঁজছে।",
    "ரோபோ மேசைக்குக் கீழே சாவியைத் தேடுகிறது.",
    "రోబోట్ బల్ల కింద తాళం వెతుకుతోంది.",
    "หุ่นยนต์กำลังหากุญแจใต้โต๊ะ",
    "ຫຸ່ນຍົນກຳລັງຊອກຫາກະແຈ",
    "ရိုဘော့က စားပွဲအောက်မှာ သော့ရှာနေတယ်။",
    "მანქანა გასაღებს ეძებს მაგიდის ქვეშ.",
    "Ռոբոտը բանալին փնտրում է սեղանի տակ։",
    "ሮቦቱ ቁልፉን ከጠረጴዛው ስር ይፈልጋል።",
    "机器人正在桌子下面找钥匙，一共走了十二步。",
    "機器人在桌子底下找鑰匙，燈還亮著。",
    "ロボットは机の下でカギを探しています。ガンバレ！",
    "로봇이 책상 아래에서 열쇠를 찾고 있다.",
    "Rô-bốt đang tìm chìa khóa dưới gầm bàn.",
    "for (int i = 0; i < 10; ++i) {\n\tsum += values[i] * 0x1F;\n}\n",
    "def area(r):\n    return 3.14159 * r ** 2  # in cm²\n\n\nprint(area(12))",
    '{"name": "arm", "joints": [1, 2, 3], "ok": true, "note": null}',
    "SELECT count(*) FROM frames WHERE seen >= '2024-05-01' AND id != 42;",
    "x² + y² ≤ r², ∀ε>0 ∃δ: |f(x)−f(a)| < ε ⇒ ½·∑ᵢ xᵢ → ∞",
    "👩‍🚀 and 🤖🏽 met at 🏁… 🇨🇭🇯🇵 ☕️!",
    "  leading and   inner    spaces \t tabs\t\tand trailing   ",
    "\n\n\nThree breaks\r\nand one of the other kind\r\n\r\n",
    "HELLOWorld camelCase snake_case kebab-case 12345678901234567890 v1.2.3-rc4",
)
_RANGES = (
    (0x20, 0x7E), (0xA0, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x6FF),
    (0x900, 0x97F), (0xE01, 0xE5B), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2190, 0x22FF),
    (0x3000, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xADFF), (0xFF01, 0xFF60), (0x1F300, 0x1F64F),
    (0x1D400, 0x1D4FF), (0x300, 0x36F),
)  # fmt: skip


def texts(count: int, seed: int = 0) -> list[str]:
    """Sentences, mixtures of them, and characters drawn from the blocks of Unicode."""
    rng = random.Random(seed)
    made = list(_SENTENCES)
    while len(made) < count:
        if len(made) % 2:
            words = " ".join(rng.sample(_SENTENCES, 3)).split(" ")
            made.append(" ".join(rng.sample(words, min(len(words), 12))))
        else:
            blocks = [rng.choice(_RANGES) for _ in range(rng.randint(2, 40))]
            made.append("".join(chr(rng.randint(*block)) for block in blocks))
    return made[:count]
