//! `cargo xtask openapi`: the API's description, from the code.

use crate::process::{self, Result, cargo};

pub(crate) const HELP: &str = "Write docs/openapi.json anew from the code\n\
     The tests fail while the committed file differs from what the worker serves at /openapi.json.";

pub(crate) fn run(_: &[String]) -> Result {
    // The test that compares writes it when it is told to, so that there is one place that knows how it looks.
    let mut test = cargo(["test", "--quiet", "--workspace", "--test", "it", "the_committed_document"]);
    process::run(test.env("SD_WRITE_OPENAPI", "1"))?;
    println!("docs/openapi.json is what the code says");
    Ok(())
}
