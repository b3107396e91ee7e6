"""The incremental engine against the whole net in float64 on windows written out as strings."""

import contextlib
import gzip
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import BASES, random_bases
from engine_oracle import (
    Case,
    Contig,
    Expected,
    Oracle,
    StageSpec,
    ToyNet,
    all_alts,
    as_alleles,
    beluga_stages,
    random_case,
    toy_net,
    toy_nets,
    with_n,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from raygenome.engines.choice import Engine, make_engine
from raygenome.engines.full import Effects
from raygenome.engines.incremental import engine as engine_module
from raygenome.engines.incremental import head as head_module
from raygenome.engines.incremental.engine import cut
from raygenome.engines.incremental.planner import plan_chain
from raygenome.genome.fasta import Reference
from raygenome.genome.sequence import decode
from raygenome.genome.windows import Frame
from raygenome.models import LayeredNet, build
from raygenome.registry.weights import randomise

#: Largest error of a difference of probabilities, against float64.
TOLERANCE = 2e-6
INDEL_MODES = ["symmetric", "left-anchor"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What is not in the engine's threads, the float64 nets, runs on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def paid(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return the answers of `head_pays`, as they come: True is a dense head."""
    answers: list[bool] = []
    plain = head_module.head_pays

    def recorded(*args: object) -> bool:
        answers.append(plain(*args))  # type: ignore[arg-type]
        return answers[-1]

    monkeypatch.setattr(head_module, "head_pays", recorded)
    return answers


def centred(net: LayeredNet, indel_mode: str = "symmetric") -> Frame:
    width = net.config["window"]
    return Frame(width, width // 2 - 1, indel_mode)


def make(net: LayeredNet, frame: Frame, name: str = "incremental", **options: object) -> Engine:
    channels, n_value = net.DEFAULT_CHANNEL_ORDER, net.DEFAULT_N_VALUE
    return make_engine(name, net, channels=channels, n_value=n_value, frame=frame, **options)


def joined(blocks: Iterable[Effects]) -> Effects:
    return Effects(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def answers(engine: Engine, cases: list[Case], bases: str) -> Effects:
    """Return the effects of sorted cases, all in one."""
    return joined(engine.effects(as_alleles(cases), Contig(bases)))


def scored(
    net: LayeredNet, frame: Frame, cases: list[Case], bases: str, **options: object
) -> Effects:
    engine = make(net, frame, **options)
    try:
        return answers(engine, cases, bases)
    finally:
        engine.close()


def oracle_of(net: LayeredNet) -> Oracle:
    return Oracle(net, net.DEFAULT_CHANNEL_ORDER, net.DEFAULT_N_VALUE)


def worst(found: Effects, expected: Expected) -> float:
    return float(np.abs(found.diff - expected.diff).max())


def check(found: Effects, expected: Expected) -> None:
    assert found.diff.dtype == found.log_odds.dtype == np.float32
    assert worst(found, expected) <= TOLERANCE
    np.testing.assert_allclose(found.log_odds, expected.log_odds, atol=3e-5, rtol=1e-5)
    assert not found.diff[~expected.changed].any(), "the window did not change"
    assert not found.log_odds[~expected.changed].any(), "the window did not change"


# Random small nets, random alleles.


@settings(max_examples=80, deadline=None)
@given(net=toy_nets(), data=st.data())
def test_any_net_any_allele(net: ToyNet, data: st.DataObject) -> None:
    width = net.config["window"]
    centre = data.draw(st.integers(0, width - 1), label="centre")
    frame = Frame(width, centre, data.draw(st.sampled_from(INDEL_MODES), label="indel mode"))
    both_strands = data.draw(st.booleans(), label="both strands")
    length = data.draw(st.integers(2, 4 * width), label="contig")
    rng = np.random.default_rng(data.draw(st.integers(0, 999), label="seed"))
    bases = random_bases(rng, length)
    if data.draw(st.booleans(), label="N"):
        begin = int(rng.integers(length))
        bases = with_n(bases, begin, min(begin + 9, length))
    cases = [random_case(rng, bases, 3 * width // 2) for _ in range(12)]
    first = int(rng.integers(length))
    cases = sorted([*cases, *all_alts(range(first, min(first + 8, length)))])
    found = scored(net, frame, cases, bases, both_strands=both_strands)
    check(found, oracle_of(net).effects(cases, bases, frame, both_strands=both_strands))


@pytest.mark.parametrize("indel_mode", INDEL_MODES)
def test_a_net_shaped_as_beluga(indel_mode: str) -> None:
    net = toy_net(beluga_stages(), features=106, slack=10, hidden=(12,), targets=9)
    assert net.config["window"] == 2000
    rng = np.random.default_rng(1)
    bases = random_bases(rng, 3000)
    frame = centred(net, indel_mode)
    cases = sorted(
        [random_case(rng, bases, 300) for _ in range(20)] + all_alts(range(1400, 1430, 3))
    )
    check(scored(net, frame, cases, bases), oracle_of(net).effects(cases, bases, frame))


# Full-size nets.


def published(architecture: str) -> LayeredNet:
    net = build(architecture)
    randomise(net, 3)
    return net.eval()


def awkward_cases(rng: np.random.Generator, bases: str, n: int) -> list[Case]:
    """Return alleles of all kinds, up to 300 bases long, at the ends and around a run of N too."""
    end, middle = len(bases), len(bases) // 2
    cases = [random_case(rng, bases, 300) for _ in range(n)]
    cases += all_alts(range(middle, middle + 4))
    for length in (2, 16, 17, 300):
        cases += [(middle - 30 + length, 1, random_bases(rng, length))]
        cases += [(middle + 30 - length, length, "T")]
        cases += [(middle + 9, length, random_bases(rng, length))]
    cases += [(0, 1, "G"), (3, 1, "ACCA"), (1, 5, "T"), (end - 1, 1, "T"), (end - 9, 8, "C")]
    cases += [(bases.index("N") - 20, 1, "A"), (bases.rindex("N") + 8, 1, "CT")]
    return sorted(cases)


def dense_cases(rng: np.random.Generator, net: LayeredNet, begin: int, n: int) -> list[Case]:
    """Return alleles whose windows have all their features in common but the ends'."""
    step = plan_chain(net).feature_stride
    return [
        (begin + step * i, 2 if i % 5 == 0 else 1, random_bases(rng, 3 if i % 3 == 0 else 1))
        for i in range(n)
    ]


def compared(
    net: LayeredNet, cases: list[Case], bases: str, frame: Frame, oracle: Oracle
) -> tuple[float, float]:
    """Check the engine; return its largest error of a difference and the full engine's."""
    expected = oracle.effects(cases, bases, frame)
    assert np.abs(expected.diff).max() > 1e-3, "a net that answers nothing tests nothing"
    incremental = scored(net, frame, cases, bases)
    check(incremental, expected)
    full = scored(net, frame, cases, bases, name="full")
    errors = worst(incremental, expected), worst(full, expected)
    print("largest errors of diff: incremental {:.2e}, full {:.2e}".format(*errors))
    return errors


def test_basset_on_a_few_alleles(paid: list[bool]) -> None:
    net = published("basset")
    rng = np.random.default_rng(5)
    bases = random_bases(rng, 900)
    cases = sorted([random_case(rng, bases, 40) for _ in range(10)] + all_alts(range(400, 406)))
    error, of_full = compared(net, cases, bases, centred(net), oracle_of(net))
    assert error <= of_full
    assert paid == [False, False]


def test_deepsea_on_a_few_alleles(paid: list[bool]) -> None:
    net = published("deepsea")
    rng = np.random.default_rng(6)
    bases = random_bases(rng, 1300)
    cases = sorted([(600, 1, "A"), (600, 1, "C"), (606, 4, "TA"), (640, 1, "GATTACA")])
    error, of_full = compared(net, cases, bases, centred(net), oracle_of(net))
    assert error <= of_full
    assert paid == [False, False]


@pytest.mark.slow
@pytest.mark.parametrize("indel_mode", INDEL_MODES)
@pytest.mark.parametrize(("architecture", "n"), [("deepsea", 20), ("basset", 100)])
def test_published_nets_are_no_further_from_float64_than_the_full_engine(
    architecture: str, n: int, indel_mode: str
) -> None:
    net = published(architecture)
    rng = np.random.default_rng(11)
    bases = random_bases(rng, 1200) + "N" * 90 + random_bases(rng, 1500)
    frame = centred(net, indel_mode)
    error, of_full = compared(net, awkward_cases(rng, bases, n), bases, frame, oracle_of(net))
    assert error <= of_full


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["deepsea", "basset"])
def test_published_nets_where_variants_are_dense(architecture: str, paid: list[bool]) -> None:
    net = published(architecture)
    rng = np.random.default_rng(12)
    bases = random_bases(rng, 2500)
    cases = dense_cases(rng, net, 1000, 14)
    error, of_full = compared(net, cases, bases, centred(net), oracle_of(net))
    assert error <= of_full
    assert paid == [True, True]


# Real sequence and real variants.


class PartOfContig:
    """Real coordinates for the engine, as the scorer gives them."""

    def __init__(self, reference: Reference, contig: str) -> None:
        self._reference, self._contig = reference, contig

    def fetch(self, start: int, end: int) -> np.ndarray:
        return self._reference.fetch(self._contig, start, end)


def real_cases(path: Path, begin: int, end: int) -> Iterator[Case]:
    """Yield the alleles of a VCF whose REF lies in [begin, end)."""
    with gzip.open(path, "rt") as lines:
        for line in lines:
            if line.startswith("#"):
                continue
            _, pos, _, ref, alts = line.split("\t")[:5]
            start = int(pos) - 1
            if start >= end:
                return
            if start >= begin:
                yield from (
                    (start, len(ref), a) for a in alts.split(",") if not set(a) - set(BASES)
                )


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "span"), [("deepsea", 1500), ("basset", 6000)])
def test_real_variants_on_real_sequence(real_data: Path, architecture: str, span: int) -> None:
    net = published(architecture)
    frame = centred(net)
    begin = 1_200_000
    origin, width = begin - 2 * frame.width, span + 4 * frame.width
    path = real_data / "hg19" / "vcf" / "1000g_chr20_1-2M.sites.vcf.gz"
    cases = list(real_cases(path, begin, begin + span))
    assert any(length > 1 or len(alt) > 1 for _, length, alt in cases), "there is no indel"
    with contextlib.closing(
        Reference.open(real_data / "hg19" / "genome" / "hg19_mini.fa.gz")
    ) as reference:
        contig = PartOfContig(reference, "chr20")
        bases = decode(contig.fetch(origin, origin + width))
        moved = [(start - origin, length, alt) for start, length, alt in cases]
        expected = oracle_of(net).effects(moved, bases, frame)
        errors = []
        for name in ("incremental", "full"):
            engine = make(net, frame, name)
            found = joined(engine.effects(as_alleles(cases), contig))
            engine.close()
            errors.append(worst(found, expected))
            if name == "incremental":
                check(found, expected)
    print(
        len(cases),
        "alleles; largest errors of diff: incremental {:.2e}, full {:.2e}".format(*errors),
    )
    assert errors[0] <= errors[1]


# What a result may depend on.


def lively_net(seed: int = 7) -> ToyNet:
    """Return a net small enough for hundreds of alleles, large enough for every routine."""
    stages = [
        StageSpec(24, 8, 4, "threshold"),
        StageSpec(32, 6, 2, "relu", norm=True),
        StageSpec(40, 5, 1, "gelu"),
    ]
    return toy_net(stages, features=24, slack=3, hidden=(48,), targets=37, seed=seed)


def busy_shard(seed: int, n: int = 150) -> tuple[list[Case], str]:
    """Return alleles, half of them dense, and their contig."""
    rng = np.random.default_rng(seed)
    bases = random_bases(rng, 2600)
    cases = [random_case(rng, bases, 30) for _ in range(n // 2)] + all_alts(
        range(700, 700 + n // 8)
    )
    return sorted(cases), bases


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every shard many chunks."""
    monkeypatch.setitem(engine_module.CHUNK, "cpu", (40, 1 << 20))


@pytest.mark.usefixtures("small_chunks")
def test_bytes_depend_on_neither_threads_nor_other_shards() -> None:
    net = lively_net()
    shards = [busy_shard(seed) for seed in range(4)]
    assert (
        len(list(cut(as_alleles(shards[0][0]), plan_chain(net), *engine_module.CHUNK["cpu"]))) > 2
    )
    found = set()
    for threads, order in [(1, [0, 1, 2, 3]), (2, [3, 2, 1, 0]), (3, [1, 1, 3, 0, 2])]:
        engine = make(net, centred(net), threads=threads)
        of_shard = {i: answers(engine, *shards[i]) for i in order}
        engine.close()
        found.add(b"".join(array.tobytes() for i in range(4) for array in of_shard[i]))
    assert len(found) == 1
    check(of_shard[0], oracle_of(net).effects(*shards[0], centred(net)))


@pytest.mark.parametrize("callers", [2, 5])
def test_bytes_do_not_depend_on_the_callers_threads(callers: int) -> None:
    net, (cases, bases) = lively_net(), busy_shard(1)
    one = scored(net, centred(net), cases, bases)
    torch.set_num_threads(callers)
    many = scored(net, centred(net), cases, bases)
    assert torch.get_num_threads() == callers
    assert one.diff.tobytes() == many.diff.tobytes()
    assert one.log_odds.tobytes() == many.log_odds.tobytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bytes_do_not_depend_on_sharing(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    net = toy_net([StageSpec(64, 5, 4)], features=90, hidden=(500,), targets=9)
    rng = np.random.default_rng(3)
    bases = random_bases(rng, 1500)
    frame = centred(net)
    cases = sorted(dense_cases(rng, net, 500, 30) + [random_case(rng, bases, 30) for _ in range(9)])
    alone = scored(net, frame, cases, bases, precision=precision)
    engines = [make(net, frame, precision=precision, share_as="a net") for _ in range(2)]
    together = [answers(engine, cases, bases) for engine in engines]
    assert list(tmp_path.glob("*/*.weights")), "nothing was shared"
    for engine in engines:
        engine.close()
    assert not list(tmp_path.glob("*/*.weights"))
    for found in together:
        assert found.diff.tobytes() == alone.diff.tobytes()
        assert found.log_odds.tobytes() == alone.log_odds.tobytes()


@pytest.mark.usefixtures("small_chunks")
def test_chunks_that_are_given_up_leave_no_trace() -> None:
    net, (cases, bases) = lively_net(), busy_shard(2)
    frame = centred(net)
    fresh = scored(net, frame, cases, bases, threads=2)
    engine = make(net, frame, threads=2)
    begun = engine.effects(as_alleles(cases), Contig(bases))
    next(begun)
    begun.close()  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        list(engine.effects(as_alleles(cases), BrokenContig(bases)))
    again = answers(engine, cases, bases)
    engine.close()
    assert again.diff.tobytes() == fresh.diff.tobytes()


class BrokenContig(Contig):
    """Fails at its end."""

    def fetch(self, start: int, end: int) -> np.ndarray:
        if end > len(self.bases) - 500:
            raise ZeroDivisionError
        return super().fetch(start, end)


def test_substitutions_that_reach_nothing_are_exactly_zero() -> None:
    """Reference and alternate logits are then equal to the bit, however many rows had which."""
    net = lively_net()
    net.layers[0].bias.data.fill_(-100.0)  # the first layer is dead
    frame = centred(net)
    bases = random_bases(np.random.default_rng(0), 3000)
    for starts in ([1500], range(1500, 1530)):
        found = scored(net, frame, all_alts(starts), bases)
        assert not found.diff.any()
        assert not found.log_odds.any()


def test_a_frame_of_another_width_is_refused() -> None:
    net = lively_net()
    frame = centred(net)
    with pytest.raises(ValueError, match="wide"):
        make(net, frame._replace(width=frame.width + 5))


def test_no_alleles_no_effects() -> None:
    net = lively_net()
    engine = make(net, centred(net))
    assert list(engine.effects(as_alleles([]), Contig("ACGT"))) == []
    engine.close()


@pytest.mark.parametrize("indel_mode", INDEL_MODES)
def test_dense_and_sparse_heads(indel_mode: str, paid: list[bool]) -> None:
    net = lively_net()
    frame, oracle = centred(net, indel_mode), oracle_of(net)
    rng = np.random.default_rng(4)
    bases = random_bases(rng, 6000)
    dense = sorted(all_alts(range(2000, 2100)) + dense_cases(rng, net, 2003, 20))
    check(scored(net, frame, dense, bases), oracle.effects(dense, bases, frame))
    assert paid == [True, True]
    sparse = [(start, *case[1:]) for start in range(0, 6000, 450) for case in dense[:3]]
    check(scored(net, frame, sparse, bases), oracle.effects(sparse, bases, frame))
    assert paid == [True, True, False, False]


@settings(max_examples=200, deadline=None)
@given(
    starts=st.lists(st.integers(0, 3000), max_size=60),
    most=st.integers(1, 50),
    most_bytes=st.integers(1, 1 << 20),
)
def test_chunks_are_all_the_rows_in_order(starts: list[int], most: int, most_bytes: int) -> None:
    chain = plan_chain(TOY)
    cases = [(start, 1, "A" * (1 + start % 3)) for start in sorted(starts)]
    chunks = list(cut(as_alleles(cases), chain, most, most_bytes))
    assert [row for begin, end in chunks for row in range(begin, end)] == list(range(len(cases)))
    assert all(begin < end for begin, end in chunks)


TOY = lively_net()


# bfloat16.


@pytest.mark.parametrize("density", ["dense", "sparse"])
def test_bf16_substitutions_are_closer_than_the_full_engines(
    density: str, paid: list[bool]
) -> None:
    """A substitution's own difference travels through the net, so its error is relative to it."""
    net = lively_net()
    frame = centred(net)
    rng = np.random.default_rng(5)
    bases = random_bases(rng, 20_000)
    starts = range(900, 1000) if density == "dense" else range(0, 20_000, 450)
    cases = all_alts(starts)
    expected = oracle_of(net).effects(cases, bases, frame).diff
    errors = [
        scored(net, frame, cases, bases, name=name, precision="bf16").diff - expected
        for name in ("incremental", "full")
    ]
    assert paid == [density == "dense"] * 2
    ours, full = (np.linalg.norm(error) / np.linalg.norm(expected) for error in errors)
    assert ours < 0.05, "relative to the differences themselves"
    assert ours < full / 2
    assert 1e-6 < np.abs(errors[0]).max() < 0.005


def test_bf16_spliced_windows_are_as_close_as_the_full_engines() -> None:
    net = lively_net()
    frame = centred(net)
    rng = np.random.default_rng(6)
    bases = random_bases(rng, 5000)
    cases = dense_cases(rng, net, 1000, 150)
    cases = [case for case in cases if case[1] > 1 or len(case[2]) > 1]
    expected = oracle_of(net).effects(cases, bases, frame).diff
    errors = [
        scored(net, frame, cases, bases, name=name, precision="bf16").diff - expected
        for name in ("incremental", "full")
    ]
    ours, full = (np.linalg.norm(error) / np.linalg.norm(expected) for error in errors)
    assert ours < 0.05
    assert ours < 1.5 * full
    assert np.abs(errors[0]).max() < 0.02
