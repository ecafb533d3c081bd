//! `sd-worker models convert`: any model as a folder in the diffusers layout.

use indicatif::DecimalBytes;
use sd_inference::save;

use super::args::ConvertArgs;
use super::size_of;
use crate::exit::{Failure, say};
use crate::model;

pub(crate) fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let files = model::files(&args.model, &args.place)?;
    let dtype = args.dtype.map(Into::into);
    save::folder(&files, &args.output, dtype, &mut |part| eprintln!("writing {part}"))
        .map_err(Failure::refused)?;
    let bytes = size_of(&args.output).map_err(Failure::failed)?;
    say(format!("{}: {}", args.output.display(), DecimalBytes(bytes)))
}
