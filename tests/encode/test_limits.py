"""What an encoder says it cannot see: ends of long texts, languages other than English, details of large pictures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.encode import encoder
from handful.encode.language import foreign
from handful.encode.limits import blind_spots
from handful.encode.minilm import MAX_TOKENS, MiniLM
from handful.read.dataset import ImageFile

LANGUAGES = json.loads((Path(__file__).parents[1] / "golden" / "languages.json").read_text(encoding="utf-8"))
ENGLISH = ["Where is my card?", "The café in Zürich is great.", "I paid 20 € at the naïve artist's.", "refund", "OK 🙂",
           "Σ x over μ is what we need to know", "404", "John Smith, Paris"]  # fmt: skip


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("language", LANGUAGES)
def test_other_languages_are_found(minilm: MiniLM, language: str) -> None:
    sentences = LANGUAGES[language]
    assert foreign(sentences, minilm.pieces).mean() >= 0.9
    (spot,) = blind_spots(minilm, sentences)
    assert (spot.kind, spot.of) == ("language", len(sentences))
    assert len(spot.rows) == spot.n >= 0.9 * spot.of and "not in English" in spot.message


def test_english_is_english(minilm: MiniLM) -> None:
    assert not foreign(ENGLISH, minilm.pieces).any()
    assert blind_spots(minilm, ENGLISH) == []


def test_false_alarms_are_rare(minilm: MiniLM, shared_data: Path) -> None:
    """AG News holds a French headline; Subj (not here) a dozen Spanish and Portuguese reviews, which are found."""
    with (shared_data / "banking77" / "test.csv").open(encoding="utf-8", newline="") as file:
        banking = [row["text"] for row in csv.DictReader(file)]
    assert foreign(banking, minilm.pieces).mean() == 0
    for name, most in (("trec", 0.0), ("cr", 0.001), ("agnews", 0.001)):
        with (shared_data / "few-shot-text" / name / "test.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        texts = [row.get("text") or row["sentence"] for row in rows]
        assert foreign(texts, minilm.pieces).mean() <= most
        assert not [spot for spot in blind_spots(minilm, texts) if spot.kind == "language"]


def test_a_few_texts_in_another_language_are_no_blind_spot(minilm: MiniLM) -> None:
    assert blind_spots(minilm, ["Where is my card?"] * 150 + LANGUAGES["German"][1:2]) == []
    (spot,) = blind_spots(minilm, ["Where is my card?"] * 50 + LANGUAGES["German"][1:2])
    assert spot.rows == (50,)


def test_cut_texts_say_what_helps(minilm: MiniLM) -> None:
    texts = ["short", "", "word " * MAX_TOKENS, "fine"]
    (spot,) = blind_spots(minilm, texts, [f"t.csv row {i}" for i in range(2, 6)])
    assert (spot.kind, spot.n, spot.of, spot.rows) == ("cut", 1, 3, (2,))
    assert spot.message == (
        "1 of 3 texts (33 %) are longer than the 256 tokens that are read; the rest of them is not seen: --long mean "
        "reads all of it (such as t.csv row 4)"
    )
    assert json.loads(json.dumps(spot.as_dict()))["rows"] == [2]
    assert blind_spots(MiniLM(long="mean"), texts) == []


def test_places_cannot_break_the_line(minilm: MiniLM) -> None:
    (spot,) = blind_spots(minilm, ["word " * 300], ["a\nb\x1b[31m.csv"])
    assert spot.message.isprintable()


def test_hub_encoders_tell_of_unknown_tokens(bert: Path) -> None:
    tower = encoder(f"hf:{bert}")
    kinds = {spot.kind: spot for spot in blind_spots(tower, ["the cat", "мой кот дома", "cat " * 40])}
    assert kinds["language"].rows == (1,) and kinds["cut"].rows == (2,)
    assert "32 tokens" in kinds["cut"].message and "no pieces for" in kinds["language"].message


def test_photographs_whose_details_vanish(tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(jpeg(1600, 1200))
    pictures = [
        jpeg(1200, 897),
        jpeg(1200, 896),
        tmp_path / "large.jpg",
        ImageFile("large", path=tmp_path / "large.jpg"),
        ImageFile("small", data=jpeg(640, 480)),
        np.zeros((2000, 2000, 3), np.uint8),
        Image.new("RGB", (3000, 500)),
        b"no picture",
        ImageFile("empty"),
        tmp_path / "missing.jpg",
    ]
    (spot,) = blind_spots(encoder("efficientnet-lite0"), pictures)
    assert (spot.kind, spot.rows, spot.of) == ("shrunk", (0, 2, 3, 5), 10)
    assert "from 1200 to 224 pixels a side" in spot.message and "--tiles" in spot.message


def test_crop_and_tiles_show_more() -> None:
    pictures = [jpeg(2400, 1800, orientation=6)]  # upright: 1800 wide, 2400 high

    def shrunk(**options: object) -> bool:
        return bool(blind_spots(encoder("efficientnet-lite0", **options), pictures))  # type: ignore[arg-type]

    assert shrunk() and shrunk(crop=(0, 0, 1000, 1000)) and shrunk(tiles=(2, 1))
    assert not shrunk(crop=(0, 0, 800, 1000)) and not shrunk(crop=(0, 0.5, 0.4, 0.4)) and not shrunk(tiles=(3, 3))
    assert not shrunk(crop=(0, 0, 1900, 2000))  # lies outside, which encoding says


def test_only_some_of_many_pictures_are_opened() -> None:
    (spot,) = blind_spots(encoder("efficientnet-lite0"), [jpeg(1200, 1000)] * 2500)
    assert spot.of == 1000 and spot.rows[0] == 0 and spot.rows[-1] == 2499


def test_nothing_is_said_of_nothing(minilm: MiniLM) -> None:
    assert blind_spots(minilm, []) == [] and blind_spots(encoder("efficientnet-lite0"), []) == []
    assert blind_spots(minilm, ["", None, 3]) == []
