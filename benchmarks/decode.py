"""Decoding: from a caption to all codes of one image or many, and how its cost grows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks import llamagen_peer, ours, peers
from benchmarks.floors import DTYPES, decoding_floor
from benchmarks.options import Session, Table
from benchmarks.shape import Shape, Work
from benchmarks.timing import Contender, Row
from dalle_mini_impl.precision import Precision

NOTES = [
    "Every contender samples all codes of the given number of images, without decoding them to "
    "pixels. All images are of one caption unless the case says otherwise: this project runs it "
    "once, the peers once for each image.",
    "DALLE-pytorch keeps the better half of the logits (its default); the others sample from all.",
    "DALLE-pytorch 1.6.6 never passes its cache on at guidance 1; 'cache repaired' does.",
    "Llama's guidance is transformers' own: a second, unconditional call for each code.",
    "Roofline: each step's weights and filled cache at the bandwidth of a matrix–vector product of "
    "that size, or its products at the peak of a large square one, whichever takes longer.",
]


@dataclass(frozen=True)
class DecodeOptions:
    """Decoding."""

    images: tuple[int, ...] = (1, 16, 32)
    """Images of one caption, at guidance 1."""
    guided: tuple[int, ...] = (32,)
    """Images of one caption, guided."""
    captions: tuple[int, ...] = (16,)
    """Images, each of a caption of its own."""
    guidance: float = 3.0
    """Scale of the guided cases."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """Types of the weights."""
    sweep: bool = False
    """Also measure how the cost grows with batch, grid, depth and width, without DALLE-pytorch."""


@dataclass(frozen=True)
class Case:
    """Images asked for."""

    images: int
    captions: int = 1
    guidance: float = 1.0

    def __str__(self) -> str:
        text = f"{self.images} image{'' if self.images == 1 else 's'}"
        if self.captions > 1:
            text += f" of {self.captions} captions"
        return text + (" guided" if self.guidance != 1 else "")


@dataclass(frozen=True)
class Sampler:
    """A named way to sample codes with one model."""

    name: str
    sample: Callable[[Tensor, int, float], Tensor]
    work: Work
    ours: bool = False
    guided: bool = True
    """Whether it can guide."""
    compiled: bool = False
    """Whether its first call compiles."""
    sweeps: bool = False
    """Whether it takes part where captions differ and in the measurement of growth."""


def run(options: DecodeOptions, session: Session) -> list[Table]:
    """The table of cases and, where asked for, of how cost grows."""
    shape = session.common.shape
    cases = [Case(n) for n in options.images]
    cases += [Case(n, captions=n) for n in options.captions if n > 1]
    cases += [Case(n, guidance=options.guidance) for n in options.guided]
    rows: list[Row] = []
    for precision in session.able(options.precisions):
        samplers = contenders(shape, session, precision)
        for case in cases:
            rows += time_case(str(case), case, shape, samplers, session, precision)
    tables = [Table("decode", f"Decoding {shape.image} codes", rows, NOTES)]
    if options.sweep:
        for precision in session.able(options.precisions):
            tables.append(sweep(session, precision))
    return tables


def contenders(
    shape: Shape, session: Session, precision: Precision, growing: bool = False
) -> list[Sampler]:
    """All that are installed, in one precision; `growing`: those that are swept.

    In bf16 all weights of the peers, and those of this project that its sampler takes.
    """
    dtype, device, compiled = DTYPES[precision], session.device, session.common.compile
    dalle = ours.build_dalle(shape, device).eval()
    work = ours.work_of(dalle)
    found = [
        Sampler(f"this project, {name}", sample, work, True, compiled=name != "eager", sweeps=True)
        for name, sample in ours.decoders(dalle, compiled, precision).items()
    ]
    if peers.present(peers.LLAMA):
        llama, work = peers.build_llama(shape, device)
        llama = llama.to(dtype).eval()
        sample = peers.llama_decoder(llama, shape)
        found.append(Sampler(f"{peers.LLAMA}, static cache", sample, work, sweeps=True))
        if compiled and not growing:
            sample = peers.llama_decoder(llama, shape, compiled=True)
            name = f"{peers.LLAMA}, compiled"
            found.append(Sampler(name, sample, work, guided=False, compiled=True))
    if peers.present(peers.DALLE) and not growing:
        peer, work = peers.build_dalle_pytorch(shape, device)
        peer = peer.to(dtype).eval()
        sample = peers.dalle_pytorch_decoder(peer, repaired=False)
        found.append(Sampler(peers.DALLE, sample, work))
        sample = peers.dalle_pytorch_decoder(peer, repaired=True)
        found.append(Sampler(f"{peers.DALLE}, cache repaired", sample, work, guided=False))
    if peers.present(peers.LLAMAGEN) and not growing:
        llamagen, work = llamagen_peer.build(shape, device)
        sample = llamagen_peer.decoder(llamagen.to(dtype).eval(), shape)
        found.append(Sampler(peers.LLAMAGEN, sample, work))
    return [sampler for sampler in found if session.wanted(sampler.name)]


def time_case(
    name: str,
    case: Case,
    shape: Shape,
    samplers: list[Sampler],
    session: Session,
    precision: str,
) -> list[Row]:
    """One case of all samplers that can do it."""
    generator = torch.Generator().manual_seed(case.images)
    captions = torch.randint(
        1, shape.text_vocabulary, (case.captions, shape.text), generator=generator
    ).to(session.device)
    guided = case.guidance != 1
    prompts, rows = case.captions + guided, case.images * (1 + guided)

    def sample_all(sampler: Sampler) -> None:
        # A peer may write into the captions it is given.
        codes = sampler.sample(captions.clone(), case.images, case.guidance)
        if codes.shape != (case.images, shape.image):
            raise ValueError(f"{sampler.name} sampled {tuple(codes.shape)} codes")

    return session.measure(
        name,
        precision,
        [
            Contender(
                sampler.name,
                partial(sample_all, sampler),
                sampler.ours,
                sampler.work.parameters,
                partial(
                    decoding_floor, shape, sampler.work, rows, prompts, session.floors, precision
                ),
                compiled=sampler.compiled,
            )
            for sampler in samplers
            if (sampler.guided or not guided) and (sampler.sweeps or case.captions == 1)
        ],
        case.images * shape.image,
        "codes/s",
    )


def sweep(session: Session, precision: str) -> Table:
    """Batch 1 to 256, grid 8×8 to 32×32, depth and width, one changed at a time."""
    rows: list[Row] = []
    for name, shape, case in growth(session.common.shape):
        samplers = contenders(shape, session, precision, growing=True)
        rows += time_case(name, case, shape, samplers, session, precision)
    return Table("decode-sweep", f"How the cost of decoding grows ({precision})", rows)


def growth(shape: Shape) -> Iterator[tuple[str, Shape, Case]]:
    """Shapes and cases around `shape`."""
    for images in (1, 4, 16, 64, 256):
        yield f"batch {images}", shape, Case(images)
    for grid in (8, 16, 24, 32):
        yield f"grid {grid}×{grid}", replace(shape, grid=grid), Case(1)
    for depth in (3, 6, 12, 24):
        yield f"depth {depth}", replace(shape, depth=depth), Case(1)
    for width in (128, 256, 512, 1024):
        ffn_width = 16 * round(width * 8 / 3 / 16)
        changed = replace(shape, width=width, heads=max(1, width // 64), ffn_width=ffn_width)
        yield f"width {width}", changed, Case(1)
