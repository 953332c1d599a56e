"""FewCLUE on small files in its forms: read, scored, handed in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from handful.errors import BadInput
from handful.evaluate.fewclue import (
    ALL,
    SPLITS,
    TASKS,
    accuracy,
    load_fewclue,
    majority,
    run_benchmark,
    write_submission,
)

ROWS = {
    "eprstmt": lambda i: {"id": i, "sentence": f"好{i}", "label": ("Positive", "Negative")[i % 2]},
    "ocnli": lambda i: {"sentence1": f"甲{i}", "sentence2": "乙", "label": ("neutral", "entailment", "-")[i % 3]},
    "tnews": lambda i: {"id": i, "label": 100 + i % 2, "label_desc": ("news_a", "news_b")[i % 2], "sentence": f"题{i}"},
    "iflytek": lambda i: {"label": i % 2, "label_des": ("地图", "打车")[i % 2], "sentence": f"应用\u2028{i}"},
    "csldcp": lambda i: {"content": f"文{i}", "label": ("数学", "力学")[i % 2]},
    "bustm": lambda i: {"id": i, "sentence1": f"甲{i}", "sentence2": "乙", "label": str(i % 2)},
    "chid": lambda i: {"id": i, "candidates": ["一", "二"], "content": f"#idiom#{i}", "answer": i % 2},
    "csl": lambda i: {"id": i, "abst": f"摘{i}", "keyword": ["子", "丑"], "label": str(i % 2)},
    "cluewsc": lambda i: {
        "text": f"小明说他{i}",
        "target": {"span1_index": 0, "span1_text": "小明", "span2_index": 3, "span2_text": "他"},
        "label": ("true", "false")[i % 2],
    },
}


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for task, row in ROWS.items():
        folder = tmp_path / task
        folder.mkdir()
        union = []
        for i in range(5):
            part = [row(j) for j in range(6 * i, 6 * i + 8)]  # neighbours share two
            union += [r for r in part if r not in union]
            write(folder / f"train_{i}.json", part)
            write(folder / f"dev_{i}.json", part[::-1])
        write(folder / "train_few_all.json", union)
        write(folder / "dev_few_all.json", union)
        write(folder / "test_public.json", [row(100 + j) for j in range(9)])
        hidden = [{k: v for k, v in row(200 + j).items() if "label" not in k and k != "answer"} for j in range(4)]
        write(folder / "test.json", [{**h, "id": j} for j, h in enumerate(hidden)])
    return tmp_path


@pytest.mark.paper(66, oracle="e")
@pytest.mark.parametrize("name", TASKS)
def test_the_union_of_the_splits_is_all(root: Path, name: str) -> None:
    task = load_fewclue(root, name)
    parts = {item[:3] for split in SPLITS for item in task.splits[split][0]}
    assert parts == {item[:3] for item in task.splits[ALL][0]}
    assert task.pair == (task.test[0].other is not None)
    assert len(task.hidden) == 4 and all(item.label is None for item in task.hidden)


def test_forms(root: Path) -> None:
    assert load_fewclue(root, "cluewsc").test[0][:3] == ("_小明_说[他]100", None, "true")
    assert load_fewclue(root, "chid").test[0][:3] == ("#idiom#100", "一，二", "0")
    assert load_fewclue(root, "iflytek").test[0][:3] == ("应用\u2028100", None, "地图")
    assert len(load_fewclue(root, "ocnli").test) == 6  # lines without agreement are left out


@pytest.mark.paper(66, oracle="b")
def test_the_majority_is_a_count(root: Path) -> None:
    task = load_fewclue(root, "eprstmt")
    (scores,), overall = run_benchmark(majority, [task])
    truth = np.array([item.label for item in task.test])
    assert scores.splits == (100 * np.mean(truth == "Negative"),) * 5
    assert (scores.mean, scores.deviation, overall) == (scores.splits[0], 0, scores.splits[0])
    other = load_fewclue(root, "ocnli")
    both, overall = run_benchmark(majority, [task, other])
    assert [score.task for score in both] == ["eprstmt", "ocnli"] and both[0] == scores
    assert overall == pytest.approx((both[0].mean + both[1].mean) / 2)  # tasks weigh the same, whatever their size
    firsts = {"0": 0.0, "1": 50.0}

    def by_split(train, dev, test):  # the first split is answered wrongly, the second half, the others rightly
        split = next(name for name, (items, _) in task.splits.items() if items is train)
        truth = [item.label for item in task.test[: int(len(test) * firsts.get(split, 100.0) / 100)]]
        return truth + ["none"] * (len(test) - len(truth))

    (scores,), _ = run_benchmark(by_split, [task])
    assert scores.splits == pytest.approx((0, 100 * 4 / 9, 100, 100, 100)) and scores.all == 100
    assert scores.deviation == pytest.approx(np.std(scores.splits, ddof=1))


@pytest.mark.paper(66, oracle="c")
def test_perfect_answers_score_100_and_a_submission_reads_back(root: Path, tmp_path: Path) -> None:
    task = load_fewclue(root, "tnews")
    truth = {item.id: item.label for item in task.test}
    seen = []

    def knows(train, dev, test):
        seen.extend(item.label for item in test)
        return [truth[item.id] for item in test]

    (scores,), overall = run_benchmark(knows, [task])
    assert (scores.mean, scores.all, overall) == (100, 100, 100)
    assert set(seen) == {None}  # a method does not see the labels
    answers = ["news_a", "news_b", "news_b", "news_a"]
    path = write_submission(tmp_path, task, "all", answers)
    assert path.name == "tnews_predict_all.json"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == [{"id": i, "label": number} for i, number in enumerate(["100", "101", "101", "100"])]
    named = {number: name for name, number in task.handed_in.items()}
    assert [named[row["label"]] for row in rows] == answers


@pytest.mark.paper(66, oracle="c")
def test_a_submission_has_the_form_of_the_examples_of_the_authors(root: Path, tmp_path: Path) -> None:
    def first(name: str, answer: str) -> dict:
        path = write_submission(tmp_path, load_fewclue(root, name), "0", [answer] * 4)
        return json.loads(path.read_text(encoding="utf-8").splitlines()[0])

    assert first("chid", "1") == {"id": 0, "answer": 1}
    assert first("iflytek", "打车") == {"id": 0, "label": "1"}
    assert first("csldcp", "数学") == {"id": 0, "label": "数学"}
    assert first("bustm", "1") == {"id": 0, "label": "1"}


def test_what_is_wrong_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no task 'tnew'; did you mean 'tnews'"):
        load_fewclue(root, "tnew")
    task = load_fewclue(root, "tnews")
    with pytest.raises(BadInput, match="write a submission instead"):
        accuracy(task.hidden, ["news_a"] * 4)
    with pytest.raises(BadInput, match="3 answers to the 4 items"):
        write_submission(tmp_path, task, "0", ["news_a"] * 3)
    with pytest.raises(BadInput, match="no label 'news_c'"):
        write_submission(tmp_path, task, "0", ["news_c"] * 4)
    with pytest.raises(BadInput, match="chid has no label '7'"):
        write_submission(tmp_path, load_fewclue(root, "chid"), "0", ["7"] * 4)
    with pytest.raises(BadInput, match="no hidden test to answer"):
        write_submission(tmp_path, replace(task, hidden=()), "0", [])
    with pytest.raises(BadInput, match=r"answers are labels such as '[01]', not 1"):
        run_benchmark(lambda train, dev, test: [1] * len(test), [load_fewclue(root, "bustm")])
    for splits in ((), ["5"], "0"):
        with pytest.raises(BadInput, match="splits"):
            run_benchmark(majority, [task], splits)
    assert run_benchmark(majority, [task], range(2))[0][0].splits == run_benchmark(majority, [task])[0][0].splits[:2]
    folder = root / "cluewsc"
    target = {"span1_index": 1, "span1_text": "小明", "span2_index": 3, "span2_text": "他"}
    write(folder / "test_public.json", [{"text": "小明说他", "target": target, "label": "true"}])
    with pytest.raises(BadInput, match=r"line 1: no example of cluewsc .'小明' does not stand at 1"):
        load_fewclue(root, "cluewsc")
    write(root / "csldcp" / "dev_0.json", [{"content": None, "label": "数学"}])
    with pytest.raises(BadInput, match="None is no text"):
        load_fewclue(root, "csldcp")
    write(root / "csl" / "dev_0.json", [["a"]])
    with pytest.raises(BadInput, match="line 1: no example of csl, but"):
        load_fewclue(root, "csl")
    folder = root / "tnews"
    write(folder / "test_public.json", [{**ROWS["tnews"](1), "label_desc": "other"}])
    with pytest.raises(BadInput, match="label 'other' is in no training split"):
        load_fewclue(root, "tnews")
    write(folder / "test.json", [{"id": 0, "sentence": "a"}] * 2)
    write(folder / "test_public.json", [ROWS["tnews"](1)])
    with pytest.raises(BadInput, match="line 2: id 0 comes twice"):
        load_fewclue(root, "tnews")
    (folder / "train_3.json").write_text('{"id": 0}\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"train_3\.json, line 1: no example of tnews"):
        load_fewclue(root, "tnews")
    (folder / "train_3.json").unlink()
    with pytest.raises(BadInput, match="five splits"):
        load_fewclue(root, "tnews")
