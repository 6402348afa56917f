"""`dalle sample`: images from captions, ranked, with a contact sheet and samples.json."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalle_mini_impl.cli.image_files import open_image
from dalle_mini_impl.cli.output import output, write_json
from dalle_mini_impl.cli.output_folder import OUTPUTS, check_folder, output_folder
from dalle_mini_impl.cli.parsing import parse_arguments
from dalle_mini_impl.cli.run_options import check_device, open_run
from dalle_mini_impl.cli.sample_arguments import SampleArguments, check
from dalle_mini_impl.cli.sample_copies import copies_left, remarks
from dalle_mini_impl.cli.sample_progress import SampleProgress
from dalle_mini_impl.cli.torch_import import importing_torch
from dalle_mini_impl.config import ConfigError
from dalle_mini_impl.data.messages import counted
from dalle_mini_impl.shipped.commands import command

if TYPE_CHECKING:
    from dalle_mini_impl.cli.output import Result as PrintResult
    from dalle_mini_impl.pipeline import Result, TextToImage
    from dalle_mini_impl.runs.folder import RunFolder
    from dalle_mini_impl.sampling.given import Given


def main(argv: Sequence[str] | None = None) -> None:
    """Sample captions, images or both."""
    arguments = parse_arguments(SampleArguments, argv, "dalle sample")
    check(arguments)
    if arguments.continue_text is None or arguments.sample:
        check_folder("--out", arguments.out or OUTPUTS)
    with output(arguments) as print_result, SampleProgress() as progress:
        sample(arguments, print_result, progress)


def sample(
    arguments: SampleArguments, print_result: "PrintResult", progress: SampleProgress
) -> None:
    """Load the run and sample."""
    progress.begin("loading the models")  # The imports alone take a second.
    with importing_torch():
        from dalle_mini_impl.cli.sample_again import sample_again
        from dalle_mini_impl.cli.sample_captions import sample_captions, show_captions
        from dalle_mini_impl.kernels.allocator import keep_freed_memory
        from dalle_mini_impl.pipeline import TextToImage

    keep_freed_memory()
    check_device(arguments.device)
    if arguments.again is not None:
        run, result, same = sample_again(arguments.again, arguments.run, arguments.device)
        progress.clear()
        print(same)
        write_samples(run, [[result]], arguments.out, print_result, progress)
        return
    run = open_run(arguments.run, weights="dalle", otherwise="shapes")
    model = TextToImage.from_pretrained(run, arguments.device)
    if arguments.continue_text is not None:
        progress.begin("sampling captions")
        sampled = sample_captions(model, arguments)
        progress.clear()
        if not arguments.sample:
            values = {"run": run.name, "captions": [asdict(caption) for caption in sampled]}
            print_result(values, lambda: show_captions(sampled))
            return
        show_captions(sampled)
        captions = tuple(dict.fromkeys(caption.caption for caption in sampled))
        of_captions = {"temperature": None, "top_k": None}
        sampling = arguments.sampling.model_copy(update=of_captions)
        arguments = replace(arguments, captions=captions, sampling=sampling)
    sample_images(run, model, arguments, print_result, progress)


def sample_images(
    run: "RunFolder",
    model: "TextToImage",
    arguments: SampleArguments,
    print_result: "PrintResult",
    progress: SampleProgress,
) -> None:
    """Sample images from every caption and write them."""
    truncated = model.captions.count_truncated([*arguments.captions, arguments.negative])
    if truncated:
        progress.clear()
        print(f"{counted(truncated, 'caption')} cut after {model.captions.context} tokens")
    guidance = arguments.sampling_settings.get("guidance", model.sampling.guidance)
    if arguments.negative and guidance == 1:
        raise ConfigError("--negative acts through guidance, which is 1 here: add --guidance 2")
    if arguments.avoid_copies and model.training_codes is None:
        print(f"{run.name} has no codes of its training images, so no copies of them are avoided")
    given = given_part(model, arguments)
    model.code_sampler.progress = lambda codes, of: progress.sampled(codes, of.shape[1])

    def results() -> "Iterator[Sequence[Result]]":
        for number, caption in enumerate(arguments.captions, 1):
            progress.begin(f"sampling for caption {number} of {len(arguments.captions)}")
            own = model(
                caption,
                seed=arguments.seed,
                negative=arguments.negative,
                avoid_copies=arguments.avoid_copies,
                given=given,
                **arguments.sampling_settings,
            )
            if arguments.avoid_copies and (copies := copies_left(caption, own)):
                progress.clear()
                print(copies)
            yield own

    write_samples(run, results(), arguments.out, print_result, progress)
    if run.read_only and arguments.run is None:
        print(
            f"{run.name} comes with the package. Train your own with `{command('train')} shapes`, "
            f"on your images with `{command('train')} folder --data.path FOLDER`"
        )


def write_samples(
    run: "RunFolder",
    results: "Iterable[Sequence[Result]]",
    given_folder: Path | None,
    print_result: "PrintResult",
    progress: SampleProgress,
) -> None:
    """Write the images of each caption as they come, samples.json and sheet.png."""
    from dalle_mini_impl.images import contact_sheet, save_png

    written: list[Sequence[Result]] = []
    records: list[dict[str, Any]] = []
    out = Path()
    for at, own in enumerate(results):
        if at == 0:  # earlier samples stay until there are new ones
            out = output_folder(given_folder)
        for place, result in enumerate(own):
            file = out / f"{at:02d}-{place:02d}.png"
            result.save(file)
            record = result.record.to_json() if result.record else {}
            of_candidates = {"repeats": result.repeats, "same_as": result.same_as}
            records.append({**record, **of_candidates, "file": file.name})
        write_json(out / "samples.json", {"run": run.name, "samples": records})
        written.append(own)
    shown = [result for own in written for result in own]
    sheet = contact_sheet(
        [result.image for result in shown],
        [result.caption for result in shown],
        [result.score_line for result in shown],
        columns=len(shown) // len(written),
        scale=2,
        marks=[result.mark for result in shown],
    )
    save_png(sheet, out / "sheet.png")
    refresh_report(run, out)
    progress.clear()
    values = {"run": run.name, "folder": str(out), "samples": records}
    summary = f"{counted(len(records), 'image')} from {run.name}: {out / 'sheet.png'}"
    print_result(values, lambda: print(*remarks(written), summary, sep="\n"))


def refresh_report(run: "RunFolder", out: Path) -> None:
    """Show images that were written into the run's folder in its report, if it has one."""
    if run.path.resolve() in out.resolve().parents and (run.path / "report.html").is_file():
        from dalle_mini_impl.evaluation.report.run_report import write_report

        write_report(run)


def given_part(model: "TextToImage", arguments: SampleArguments) -> "Given | None":
    """What --complete or --inpaint keeps of its image."""
    from dalle_mini_impl.pipeline.given_codes import given_by_mask, given_by_rows

    tokenizer = model.image_tokenizer
    if arguments.complete is not None:
        keep_rows, grid = arguments.keep_rows, tokenizer.grid
        keep_rows = grid // 2 if keep_rows is None else keep_rows
        if not 0 < keep_rows < grid:
            raise ConfigError(
                f"--keep-rows {keep_rows}: the code grid has {grid} rows, keep 1 to {grid - 1}"
            )
        image = open_image("--complete", arguments.complete)
        return given_by_rows(tokenizer, image, keep_rows)
    if arguments.inpaint is not None and arguments.mask is not None:
        image = open_image("--inpaint", arguments.inpaint)
        mask = open_image("--mask", arguments.mask)
        try:
            return given_by_mask(tokenizer, image, mask)
        except ValueError as error:
            raise ConfigError(f"--mask {arguments.mask}: {error}") from error
    return None
