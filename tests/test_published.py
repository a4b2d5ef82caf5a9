"""The published record: types, families, sources, differences that add up, and the conflicts that are known."""

import dataclasses

import pytest
from compresslab.compare.published import CONFLICTS, FAMILIES, NUMBERS, RECORD, TOP1, Published, published, sources

ROWS = published()
SOURCES = ("abstract", "GitHub", "torchvision", "paperswithcode", "mlrf.pages.dev", "hugocisneros.com")


def ids(row):
    return row.name


def test_the_record_has_every_family_and_no_row_twice():
    assert {row.family for row in ROWS} == set(FAMILIES)
    assert len(set(ROWS)) == len(ROWS) > 100
    assert [row.family for row in ROWS] == sorted((row.family for row in ROWS), key=FAMILIES.index)


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_a_row_is_typed_and_says_where_it_was_read(row):
    assert all(isinstance(getattr(row, name), float | None) for name in NUMBERS)
    assert isinstance(row.core, bool)
    assert 1989 < row.year < 2026
    assert all((row.method, row.paper, row.model, row.metric))
    assert any(name in row.source for name in SOURCES)
    assert all(text == " ".join(text.split()) for text in dataclasses.astuple(row) if isinstance(text, str))
    assert row.dataset != ""
    assert "memory" not in row.notes.replace("GPU memory", "")
    for ratio in (row.compression, row.speedup):
        assert ratio is None or ratio > 0


@pytest.mark.parametrize("row", [row for row in ROWS if None not in (row.baseline, row.compressed, row.delta)], ids=ids)
def test_a_difference_is_compressed_minus_baseline(row):
    assert row.delta == pytest.approx(row.compressed - row.baseline, abs=0.0151)  # three numbers of two decimals


def test_accuracies_are_per_cent_and_not_fractions():
    numbers = [number for row in ROWS if row.metric == TOP1 for number in (row.baseline, row.compressed) if number is not None]
    assert len(numbers) > 60
    assert all(30 < number < 100 for number in numbers)


def test_every_known_conflict_points_at_rows_that_are_there():
    for conflict in CONFLICTS:
        rows = conflict.rows()
        assert {row.name for row in rows} == set(conflict.names) and len(rows) == len(conflict.names), conflict.what


def test_the_known_conflicts_are_conflicts():
    first, again = (conflict.rows() for conflict in CONFLICTS[:2])
    assert sorted(row.delta for row in first) == [-2.9, -2.9, 0.0]
    assert sorted(row.delta for row in again) == [-0.9, 0.3]
    (inception,) = CONFLICTS[2].rows()
    assert inception.compression > 32 / 8
    assert {row.compression for row in CONFLICTS[3].rows()} == {50.0, 48.94}
    assert next(row for row in CONFLICTS[3].rows() if row.speedup).speedup < 1


def test_no_other_8_bit_row_is_smaller_than_8_bits_allow():
    known = {name for conflict in CONFLICTS for name in conflict.names}
    assert [row.name for row in ROWS if row.method.startswith("INT8") and (row.compression or 0) > 4 and row.name not in known] == []


def test_payloads_are_told_from_networks():
    assert all(row.payload_only for row in ROWS if row.method.startswith(("DoReFa", "TTQ", "BWN")))
    assert not any(row.payload_only for row in ROWS if row.family not in ("quantization",))


def test_sources_count_the_rows():
    counts = sources()
    assert sum(counts.values()) == len(ROWS)
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert sources(ROWS[:1]) == {ROWS[0].source: 1}


HEADER, FIRST, *_ = RECORD.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("family,method\npruning,x\n", "bad.csv must have the columns family, method, paper"),
     (f"{HEADER}\n{FIRST},more\n", "line 2 of bad.csv must have 16 cells"),
     (f"{HEADER}\npruning,x\n", "line 2 of bad.csv must have 16 cells"),
     (f"{HEADER}\n{FIRST}\n{FIRST.replace('pruning', 'magic', 1)}\n", "line 3 of bad.csv: family must be one of pruning, .*, got 'magic'"),
     (f"{HEADER}\n{FIRST.replace(',9,', ',nine,', 1)}\n", "line 2 of bad.csv: could not convert string to float: 'nine'"),
     (f"{HEADER}\n{FIRST[:-1]}yes\n", "line 2 of bad.csv: core must be 0 or 1, got 'yes'")],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_refused(tmp_path, text, complaint):
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        published(path)


def test_the_list_is_the_callers_own():
    published().clear()
    assert published() == ROWS and isinstance(ROWS[0], Published)
