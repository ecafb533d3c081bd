//! What is told of the files beside a model: their names, and never where they lie.

use std::path::Path;

use sd_engine::PartNames;

use crate::args::ModelArgs;
use crate::demo;

/// What those are called that the flags name beside the model: the last part of what names each, without an ending.
pub(crate) fn of(args: &ModelArgs) -> PartNames {
    // Folders have configurations of their own.
    let whole = args.name() == demo::NAME || Path::new(args.name()).is_dir();
    PartNames {
        vae: args.place.vae.as_deref().and_then(last),
        unet: args.place.unet.as_deref().and_then(last),
        config: args.place.model_config.as_deref().filter(|_| !whole).and_then(last),
        refiner: args.refiner.as_deref().and_then(last),
    }
}

/// `x` of `/models/x.safetensors`.
fn last(name: &str) -> Option<String> {
    let last = name.trim_end_matches(std::path::is_separator).rsplit(std::path::is_separator).next()?;
    Some(last.strip_suffix(".safetensors").unwrap_or(last).to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::model_set::ModelSetup;

    fn names(flags: &[&str]) -> PartNames {
        of(&ModelSetup::parse_from(flags).args)
    }

    #[test]
    fn a_part_is_called_by_the_last_part_of_its_name() {
        for (given, name) in [
            ("sdxl-refiner", "sdxl-refiner"),
            ("stabilityai/xl-refiner-1.0", "xl-refiner-1.0"),
            ("/models/xl-refiner-1.0.safetensors", "xl-refiner-1.0"),
            ("./refiner/", "refiner"),
        ] {
            assert_eq!(names(&["--model=x", "--refiner", given]).refiner.as_deref(), Some(name));
            assert_eq!(names(&["--model=x", "--vae", given]).vae.as_deref(), Some(name));
            assert_eq!(names(&["--model=x", "--unet", given]).unet.as_deref(), Some(name));
        }
        assert_eq!(names(&["--model=x"]), PartNames::default());
    }

    #[test]
    fn configurations_count_for_single_files_alone() {
        let config = |model: &str| names(&["--model", model, "--model-config=/models/sd15"]).config;
        assert_eq!(config("model.safetensors").as_deref(), Some("sd15"));
        assert_eq!((config("demo"), config(env!("CARGO_MANIFEST_DIR"))), (None, None));
    }
}
