//! A worker for programs that test it from outside.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::process::{Failure, Result, cargo, run};
use crate::workspace;

/// A running worker; it is ended when this is dropped.
pub(crate) struct Served {
    child: Child,
    url: String,
}

impl Served {
    /// Builds the worker as the tests do and starts it, in a folder where its model may be, on a free port of this machine.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Result<Self> {
        // The same packages and targets as the tests, or the features of what lies below would differ and all would be
        // built again.
        run(&mut cargo(["build", "--workspace", "--all-targets", "--locked", "--quiet"]))?;
        let program = workspace::target_dir().join("debug/sd-worker");
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments).current_dir(folder);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let said = child.stdout.take().map(BufReader::new).and_then(|lines| lines.lines().next());
        let url = match said {
            Some(Ok(line)) => line.strip_prefix("listening on ").map(str::to_owned),
            _ => None,
        };
        match url {
            Some(url) => Ok(Self { child, url }),
            None => {
                let _gone = child.kill().and_then(|()| child.wait());
                Err(Failure::new("the worker did not say where it listens"))
            }
        }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _ = self.child.wait();
    }
}
