"""Reading rows: every format gives the same rows, and every fault is named with its place."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from tasks.core.errors import UserError
from tasks.data.config import DataConfig
from tasks.data.reading import read_located

ROWS = [
    {"input": "Is it, then, raining?", "target": "weather"},
    {"input": 'Play "Ünïcode"\nnow', "target": "music"},
    {"input": "x" * 200_000, "target": "music"},
]


def _json_lines(rows):
    return "\n".join(json.dumps(row) for row in rows).encode()


def _quoted(cell):
    return '"' + cell.replace('"', '""') + '"'


def _csv(rows, separator=","):
    lines = [separator.join(["input", "target"])]
    lines += [separator.join([_quoted(row["input"]), row["target"]]) for row in rows]
    return "\r\n".join(lines).encode()


def _parquet(rows):
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


WRITTEN = {
    "rows.jsonl": _json_lines(ROWS),
    "bom.jsonl": b"\xef\xbb\xbf" + _json_lines(ROWS) + b"\n\n",
    "rows.json": json.dumps(ROWS).encode(),
    "rows.csv": _csv(ROWS),
    "rows.tsv": _csv(ROWS, "\t"),
    "rows.parquet": _parquet(ROWS),
    "ROWS.JSONL.GZ": gzip.compress(_json_lines(ROWS)),
    "rows.csv.gz": gzip.compress(_csv(ROWS)),
}


def _read(path, **settings):
    return read_located(DataConfig(train=str(path), **settings), "train")


def _refused(path, **settings):
    with pytest.raises(UserError) as caught:
        _read(path, **settings)
    assert caught.value.mend
    return caught.value


@pytest.mark.parametrize("name", WRITTEN)
def test_every_format_gives_exactly_the_rows_in_it(tmp_path, name):
    (tmp_path / name).write_bytes(WRITTEN[name])
    examples = [example for _, example in _read(tmp_path / name)]
    assert [(example.input, example.target) for example in examples] == [
        (r["input"], r["target"]) for r in ROWS
    ]


def test_a_folder_is_read_file_by_file_in_order_of_name(tmp_path):
    (tmp_path / "b.jsonl").write_bytes(_json_lines(ROWS[:1]))
    (tmp_path / "a.csv").write_bytes(_csv(ROWS[1:]))
    (tmp_path / "README.md").write_text("no data")
    assert [example.target for _, example in _read(tmp_path)] == ["music", "music", "weather"]


def test_one_row_is_enough_and_its_place_is_known(tmp_path):
    (tmp_path / "one.jsonl").write_text('\n{"q": "Hi", "a": 5}\n')
    ((place, example),) = _read(tmp_path / "one.jsonl", input="q", target="a")
    assert place == f"{tmp_path / 'one.jsonl'}, line 2"
    assert (example.input, example.target) == ("Hi", "5")


@pytest.mark.parametrize(
    ("cell", "text"), [(5, "5"), (-1.5, "-1.5"), (True, "True"), ("0", "0"), (" a ", " a "), (0, "0")]
)
def test_numbers_become_text_and_text_stays_as_it_is(tmp_path, cell, text):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"input": "Hi", "target": cell}))
    assert _read(tmp_path / "rows.jsonl")[0][1].target == text


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("", "column 'target' is empty"),
        ("  ", "column 'target' is empty"),
        (None, "column 'target' is null"),
        (float("nan"), "column 'target' is null"),
        ([], "column 'target' is a list"),
        ({}, "column 'target' is an object"),
        ("\ud800", "column 'target' holds half a character"),
    ],
)
def test_a_cell_without_text_is_refused_with_its_line_and_column(tmp_path, cell, fault):
    good, bad = json.dumps({"input": "Hi", "target": "a"}), json.dumps({"input": "Hi", "target": cell})
    (tmp_path / "rows.jsonl").write_text(f"{good}\n{bad}\n{good}")
    error = _refused(tmp_path / "rows.jsonl")
    assert error.field == "data.train"
    assert f"rows.jsonl, line 2, {fault}" in error.fault


def test_a_column_that_only_some_rows_have_is_a_null_cell(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"input": "Hi", "target": "a"}\n{"input": "Ho"}')
    assert "line 2, column 'target' is null" in _refused(tmp_path / "rows.jsonl").fault


def test_five_bad_rows_are_named_and_the_others_counted(tmp_path):
    (tmp_path / "rows.csv").write_text("input,target\n" + "Hi,\n" * 9)
    fault = _refused(tmp_path / "rows.csv").fault
    assert [f"row {n} " in fault for n in range(1, 8)] == [True] * 5 + [False] * 2
    assert fault.endswith("and 4 more")


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("rows.jsonl", b"", "is empty"),
        ("rows.jsonl", b" \n\n", "is empty"),
        ("rows.json", b"[]", "has no rows"),
        ("rows.csv", b"input,target\n", "has no rows"),
        ("rows.parquet", _parquet(ROWS)[:-20], "is not whole Parquet"),
        ("rows.parquet", b"input,target", "is not whole Parquet"),
        ("rows.jsonl.gz", b"plain", "is not whole gzip"),
        ("rows.jsonl.gz", gzip.compress(_json_lines(ROWS))[:-9], "is not whole gzip"),
        ("rows.xlsx", b"data", "has an ending that is not known"),
        ("rows", b"data", "has an ending that is not known"),
        (
            "rows.jsonl",
            b'{"input": "Hi", "target": "a"}\n{"input": "Hi" "target"}',
            "line 2, column 16: Expecting",
        ),
        ("rows.jsonl", b'{"input": "Hi", "target": "a"}\n{"input": "H', "line 2, column 11: Unterminated"),
        ("rows.jsonl", b"[1]", "line 1: a list instead of an object"),
        ("rows.jsonl", b"[" * 100_000, "line 1: maximum recursion"),
        ("rows.jsonl", b'{"input": ' + b"1" * 5000 + b"}", "line 1: Exceeds the limit"),
        ("rows.json", b'{"input": "Hi"}', "holds an object instead of a list"),
        ("rows.json", b'{"input": "Hi"}\n{"input": "Ho"}', "line 2, column 1: Extra data"),
        ("rows.json", b'[{"input": "Hi", "target": "a"}, 3]', "item 2: a number instead of an object"),
        ("rows.csv", b'input,target\n"Hi,a\n', "unexpected end of data"),
        ("rows.csv", b"input,target\nHi,a\nHi, there,a\n", "row 2 (line 3): 3 cells under 2 columns"),
        ("rows.csv", b"input,target\nHi\n", "row 1 (line 2): 1 cells under 2 columns"),
        ("rows.csv", b"input,input,target\nHi,Ho,a\n", "more than one column 'input'"),
        (
            "rows.jsonl",
            '{"input": "Grüße", "target": "a"}'.encode("latin1"),
            "byte 0xfc at offset 13 (line 1)",
        ),
        ("rows.csv", b"input,target\nHi,a\xff\n", "byte 0xff at offset 17 (line 2)"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_place_and_mend(tmp_path, name, data, fault):
    (tmp_path / name).write_bytes(data)
    error = _refused(tmp_path / name)
    assert error.field == "data.train"
    assert str(tmp_path / name) in error.fault
    assert fault in error.fault


def test_a_missing_column_is_refused_with_those_that_exist(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "Hi", "label": "a"}')
    error = _refused(tmp_path / "rows.jsonl")
    assert error.field == "data.input"
    assert f"{tmp_path / 'rows.jsonl'} has no column 'input'" in error.fault
    assert "text, label" in error.mend
    assert "--data.input=" in error.mend
    assert _refused(tmp_path / "rows.jsonl", input="text").field == "data.target"


def test_a_missing_file_is_refused_with_names_like_it(tmp_path):
    (tmp_path / "training.jsonl").write_bytes(_json_lines(ROWS))
    error = _refused(tmp_path / "trainig.jsonl")
    assert "does not exist" in error.fault
    assert "did you mean training.jsonl?" in error.mend
    assert "does not exist" in _refused(tmp_path / "nowhere" / "rows.jsonl").fault


def test_an_empty_folder_no_address_and_an_unknown_protocol_are_refused(tmp_path):
    assert "holds no data file" in _refused(tmp_path).fault
    assert "no rows are named" in _refused("").fault
    assert "can be opened: Protocol not known" in _refused("nosuch://place/rows.jsonl").fault


@pytest.mark.parametrize("cell", [["one", "two"], '["one", "two"]', ["one", 2]])
def test_choices_are_a_list_or_a_json_list_as_text(tmp_path, cell):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"input": "Which?", "target": "A", "options": cell}))
    ((_, example),) = _read(tmp_path / "rows.jsonl", choices="options")
    assert example.choices in (["one", "two"], ["one", "2"])


@pytest.mark.parametrize("cell", ["one, two", "3", None, ["one", None], [["one"]]])
def test_choices_of_another_shape_are_refused(tmp_path, cell):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"input": "Which?", "target": "A", "options": cell}))
    assert "line 1, column 'options'" in _refused(tmp_path / "rows.jsonl", choices="options").fault


def test_a_hub_data_set_is_loaded_by_split_with_class_names(tmp_path, monkeypatch):
    import datasets

    features = datasets.Features(
        {"input": datasets.Value("string"), "target": datasets.ClassLabel(names=["no", "yes"])}
    )
    loaded = datasets.Dataset.from_dict({"input": ["Hi", "Ho"], "target": [1, 0]}, features=features)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    loaded.to_parquet(tmp_path / "owner" / "name" / "train.parquet")
    loaded.select([1]).to_parquet(tmp_path / "owner" / "name" / "test.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert [example.target for _, example in _read("hub:owner/name")] == ["yes", "no"]
    assert [example.target for _, example in _read("hub:owner/name:test")] == ["no"]
    assert "cannot be loaded" in _refused("hub:owner/name:other").fault
    assert "cannot be loaded" in _refused("hub:owner/absent").fault
    assert "no hub address" in _refused("hub:name").fault


def test_a_file_that_holds_only_its_byte_order_mark_is_empty(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbf")
    assert "has no rows" in _refused(tmp_path / "rows.csv").fault


def test_brackets_in_names_of_remote_files_are_no_pattern(tmp_path):
    import fsspec

    files = fsspec.filesystem("memory")
    for name, row in (("rows[1].jsonl", ROWS[0]), ("rows1.jsonl", ROWS[1])):
        files.pipe_file(f"/{tmp_path.name}/{name}", _json_lines([row]))
    found = read_located(DataConfig(train=f"memory://{tmp_path.name}"), "train")
    assert sorted(row.input for _, row in found) == sorted(row["input"] for row in ROWS[:2])
