"""Series in text files: what is read, and which line is blamed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from effattack.errors import UsageError
from effattack.inputs.npz import open_npz
from effattack.inputs.series_files import read_csv, read_ts
from effattack.inputs.source import Source

HEADER = "@problemName x\n# a comment\n@timeStamps false\n@classLabel true up down\n@data\n"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_ts_univariate(tmp_path):
    path = written(tmp_path, "a.ts", HEADER + "1,2.5,-3e-1:down\n\n 4, 5, 6 : up \n")
    series, labels = read_ts(path)
    assert series.tolist() == [[[1, 2.5, pytest.approx(-0.3)]], [[4, 5, 6]]]
    assert series.dtype == torch.float32
    assert labels.tolist() == [1, 0]


def test_ts_channels_stand_between_colons(tmp_path):
    series, _ = read_ts(written(tmp_path, "a.ts", HEADER + "1,2:3,4:up\n5,6:7,8:down\n"))
    assert series.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1,2,?:up", "line 7: value 3 is missing"),
        ("1,NaN,3:up", "line 7: value 2 is missing"),
        ("1,,3:up", "line 7: value 2 is missing"),
        ("1,1e999,3:up", "line 7: value 2 is '1e999', no finite number"),
        ("1,1_0,3:up", "line 7: value 2 is '1_0', no finite number"),
        ("1,x,3:up", "line 7: value 2 is 'x', no finite number"),
        ("1,2,3:left", "line 7: class 'left' is none of up, down"),
        ("1,2,3", "line 7: no ':' and class"),
        ("1,2:up", "line 7: 2 values, but line 6 has 3 values: bring all series to one length, or"),
        ("1,2:3:up", "line 7: its channels have"),
        ("1,2,3:4,5,6:up", "line 7: 2 channels of 3 values, but line 6 has 3 values"),
    ],
)
def test_ts_blames_the_line(tmp_path, line, fault):
    path = written(tmp_path, "a.ts", HEADER + "1,2,3:up\n" + line + "\n")
    with pytest.raises(UsageError, match=r"a\.ts: ") as caught:
        read_ts(path)
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no line '@data'"),
        ("@data\n1:up\n", "line 1: no '@classlabel true"),
        ("@classLabel false\n@data\n1:up\n", "line 2: no '@classlabel true"),
        ("@timeStamps true\n@classLabel true up\n@data\n", "line 1: time stamps"),
        ("1,2:up\n" + HEADER, "line 1: it stands before '@data'"),
        (HEADER, "it holds no series"),
    ],
)
def test_ts_refuses_headers(tmp_path, text, fault):
    with pytest.raises(UsageError) as caught:
        read_ts(written(tmp_path, "a.ts", text))
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["label,t0,t1\n2,1.5,32767\n0,-3,4\n", '\ufeff"t0","t1","Label"\r\n1.5,32767,2\r\n-3,4,0\r\n'],
    ids=["first", "last"],
)
def test_csv_label_stands_first_or_last(tmp_path, text):
    series, labels = read_csv(written(tmp_path, "a.csv", text))
    assert series.tolist() == [[[1.5, 32767]], [[-3, 4]]]
    assert labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1: it must name the columns"),
        ("1,2,3\n", "line 1: it must name the columns"),
        ("a,label,b\n1,2,3\n", "line 1: it must name the columns"),
        ("label,a,b\n1,2\n", "line 2: 2 columns, the first line names 3"),
        ("label,a,b\n1,2,\n", "line 2: value 2 is missing"),
        ("label,a,b\n1,2,1_0\n", "line 2: value 2 is '1_0', no finite number"),
        ("label,a,b\n1_0,2,3\n", "line 2: label '1_0' is no class"),
        ("label,a,b\n-1,2,3\n", "line 2: label '-1' is no class"),
        ("label,a,b\n", "it holds no series"),
    ],
)
def test_csv_blames_the_line(tmp_path, text, fault):
    with pytest.raises(UsageError) as caught:
        read_csv(written(tmp_path, "a.csv", text))
    assert fault in str(caught.value)


@pytest.mark.parametrize("read", [read_csv, read_ts])
def test_no_text_and_no_file(tmp_path, read):
    (tmp_path / "a").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="it is no text"):
        read(tmp_path / "a")
    with pytest.raises(UsageError, match="cannot read"):
        read(tmp_path / "missing")


def test_a_source_reads_them_by_suffix(tmp_path):
    ts = written(tmp_path, "a.ts", HEADER + "1,2,3:up\n4,5,6:down\n7,8,9:up\n")
    csv = written(tmp_path, "a.csv", "label,a,b,c\n0,1,2,3\n1,4,5,6\n0,7,8,9\n")
    np.savez(tmp_path / "a.npz", series=read_ts(ts)[0].numpy(), labels=np.array([0, 1, 0]))
    for path in (ts, csv, tmp_path / "a.npz"):
        series, labels = Source(str(path), (1, 3), samples=2).open().whole()
        assert series.tolist() == [[[1, 2, 3]], [[4, 5, 6]]]
        assert labels.tolist() == [0, 1]


def test_npz_with_two_kinds_of_inputs_is_refused(tmp_path):
    ones = np.ones((1, 1, 3), "f4")
    np.savez(tmp_path / "a.npz", series=ones, inputs=ones, labels=np.zeros(1, int))
    with pytest.raises(UsageError, match="it holds series and inputs"):
        open_npz(tmp_path / "a.npz")
